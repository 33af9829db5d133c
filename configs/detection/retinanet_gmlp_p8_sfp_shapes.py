# RetinaNet with a small gMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule are ConvMLP-S's but for the learning rate.
_base_ = './retinanet_convmlp_s_fpn_shapes.py'
model = dict(
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5]),
    backbone=dict(
        _delete_=True,
        type='mlp_backbones.GMLP',
        arch=dict(patch_size=8, dim=128, depth=12, mlp_ratio=6),
        img_size=(128, 160),
        final_norm=True,
    ),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=128,
        in_stride=8,
        out_strides=(8, 16, 32, 64, 128),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
