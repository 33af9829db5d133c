_base_ = [
    '_base_/models/resmlp.py',
    '_base_/datasets/imagenet_resmlp.py',
    '_base_/schedules/resmlp_400e.py',
    '_base_/default_runtime.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(
    backbone=dict(drop_path_rate=0.05),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
