_base_ = ['./upernet_convmlp_s_512x512_160k_ade20k.py', '../_base_/backbones/gmlp_s16.py']
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=_base_.pop('backbone'),
    neck=dict(type='mlp_backbones.SimpleFeaturePyramid', in_channels=256, out_strides=(4, 8, 16, 32)),
    decode_head=dict(in_channels=[256, 256, 256, 256]),
)
