# 36 epochs with steps at 27 and 33, for 8 GPUs x 2 images: mmdetection's schedule and optimizer of Mask R-CNN with Swin
# (ms-crop-3x), and clipped gradients.
_base_ = './schedule_1x_wd5e-2.py'
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
