# 160k iterations of 8 GPUs x 2 images: mmsegmentation's schedule and optimizer of UPerNet with Swin, and clipped
# gradients.
_base_ = './schedule_40k_wd5e-2.py'
train_cfg = dict(max_iters=160000, val_interval=16000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
auto_scale_lr = dict(base_batch_size=16)
