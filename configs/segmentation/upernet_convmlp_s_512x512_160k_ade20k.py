# A config of ours, with mmsegmentation's recipe of UPerNet with Swin. Its accuracy is not known.
_base_ = [
    '_base_/models/upernet.py',
    '_base_/datasets/ade20k.py',
    '_base_/schedules/schedule_160k.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_s.py',
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=_base_.pop('backbone'),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=16000))
