_base_ = [
    '_base_/retinanet_fpn.py',
    '_base_/coco_detection.py',
    '_base_/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='mlp_backbones.ResMLP',
        arch='24',
        final_norm=True,
        cross_window=True,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://dl.fbaipublicfiles.com/deit/resmlp_24_dist.pth',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=384,
        out_strides=(8, 16, 32, 64, 128),
    ),
)
