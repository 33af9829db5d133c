_base_ = [
    '_base_/models/convmlp.py',
    '_base_/datasets/cifar100.py',
    '_base_/schedules/convmlp_transfer_50e.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_s.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(
    backbone=_base_.pop('backbone'),
    head=dict(num_classes=100),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
