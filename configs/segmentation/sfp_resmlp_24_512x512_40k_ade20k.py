_base_ = [
    '_base_/models/semantic_fpn.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/schedule_40k_wd5e-2.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/resmlp_24.py',
]
model = dict(
    backbone=_base_.pop('backbone'),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=384,
        out_strides=(4, 8, 16, 32),
    ),
)
