_base_ = [
    '_base_/models/convmlp.py',
    '_base_/datasets/imagenet.py',
    '_base_/schedules/convmlp_300e.py',
    '_base_/default_runtime.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
