_base_ = ['./upernet_convmlp_s_512x512_160k_ade20k.py', '../_base_/backbones/resmlp_24.py']
model = dict(
    backbone=_base_.pop('backbone'),
    neck=dict(type='mlp_backbones.SimpleFeaturePyramid', in_channels=384, out_strides=(4, 8, 16, 32)),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
)
