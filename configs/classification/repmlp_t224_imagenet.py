_base_ = [
    '_base_/models/repmlp.py',
    '_base_/datasets/imagenet_repmlp.py',
    '_base_/schedules/repmlp_100e.py',
    '_base_/default_runtime.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.4), dict(type='CutMix', alpha=1.0)]))
