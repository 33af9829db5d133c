_base_ = ['./upernet_convmlp_s_512x512_160k_ade20k.py', '../_base_/backbones/convmlp_l.py']
model = dict(
    backbone=_base_.pop('backbone'),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
)
