# A config of ours. RepMLPNet-D256 has a published 76.27 mIoU on Cityscapes (arXiv 2112.11081), but its authors have not
# released the code. This is mmsegmentation's UPerNet and Cityscapes, with its optimizer and schedule for UPerNet
# with Swin, for 8 GPUs x 2 images. Its accuracy is not known.
#
# Starts from scratch: the authors' weights of RepMLPNet-D256 are on Google Drive only, linked in the README.md of
# DingXiaoH/RepMLP. To start from the downloaded file, use
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
# or inherit this config with
#   model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='FILE')))
_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/cityscapes.py',
    '_base_/schedules/schedule_160k.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(type='mlp_backbones.RepMLP', arch='d256'),
    decode_head=dict(in_channels=[80, 160, 320, 640]),
    auxiliary_head=dict(in_channels=320),
)
train_cfg = dict(max_iters=80000, val_interval=8000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=1500, end=80000, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=8000))
