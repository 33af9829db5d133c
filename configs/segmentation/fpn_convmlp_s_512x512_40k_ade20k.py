_base_ = [
    '_base_/models/semantic_fpn.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/schedule_40k.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_s.py',
]
model = dict(backbone=_base_.pop('backbone'))
