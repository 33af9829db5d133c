# Semantic FPN with a small gMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule as for ConvMLP-S.
_base_ = ['./fpn_convmlp_s_shapes.py', '../_base_/backbones/gmlp_p8.py']
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(_delete_=True, img_size=96, **_base_.pop('backbone')),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=128,
        in_stride=8,
        out_strides=(4, 8, 16, 32),
    ),
)
