_base_ = [
    '_base_/models/gmlp.py',
    '_base_/datasets/imagenet_gmlp.py',
    '_base_/schedules/gmlp_300e.py',
    '_base_/default_runtime.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(
    backbone=dict(drop_path_rate=0.1),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
