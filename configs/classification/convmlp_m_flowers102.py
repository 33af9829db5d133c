_base_ = [
    '_base_/models/convmlp.py',
    '_base_/datasets/flowers102.py',
    '_base_/schedules/convmlp_transfer_50e.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_m.py',
]
# Mixup or CutMix, chosen at random with equal probability.
model = dict(
    backbone=_base_.pop('backbone'),
    head=dict(num_classes=102),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(eta_min=1e-8)  # cosine
auto_scale_lr = dict(base_batch_size=768)
