_base_ = [
    '_base_/retinanet_fpn.py',
    '_base_/coco_detection.py',
    '_base_/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        type='mlp_backbones.GMLP',
        arch='s16',
        final_norm=True,
        cross_window=True,
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/gmlp_s16_224_raa-10536d42.pth',
        ),
    ),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=256,
        out_strides=(8, 16, 32, 64, 128),
    ),
)
