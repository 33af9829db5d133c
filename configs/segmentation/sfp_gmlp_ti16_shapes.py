# Semantic FPN with gMLP-Ti16 from scratch on the synthetic shapes; data and schedule are ConvMLP-S's.
_base_ = './fpn_convmlp_s_shapes.py'
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(_delete_=True, type='mlp_backbones.GMLP', arch='ti16', img_size=96, final_norm=True),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=128,
        out_strides=(4, 8, 16, 32),
    ),
)
