_base_ = [
    '_base_/models/retinanet_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/gmlp_s16.py',
]
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=_base_.pop('backbone'),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=256,
        out_strides=(8, 16, 32, 64, 128),
    ),
)
