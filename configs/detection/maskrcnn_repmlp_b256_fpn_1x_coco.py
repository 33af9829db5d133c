_base_ = [
    '_base_/maskrcnn_fpn.py',
    '_base_/coco_instance.py',
    '_base_/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='mlp_backbones.RepMLP',
        arch='b256',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/repmlp/repmlp-base_3rdparty_8xb64_in1k-256px_20220330-7c5a91ce.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
