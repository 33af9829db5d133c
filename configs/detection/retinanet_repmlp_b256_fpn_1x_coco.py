_base_ = [
    '_base_/models/retinanet_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/repmlp_b256.py',
]
model = dict(
    backbone=_base_.pop('backbone'),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
