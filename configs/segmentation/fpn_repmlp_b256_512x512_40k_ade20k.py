_base_ = [
    '_base_/models/semantic_fpn.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/schedule_40k_wd5e-2.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/repmlp_b256.py',
]
model = dict(
    backbone=_base_.pop('backbone'),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
