# RetinaNet with a small ResMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule are ConvMLP-S's but for the learning rate.
_base_ = './retinanet_convmlp_s_fpn_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mlp_backbones.ResMLP',
        arch=dict(patch_size=8, dim=192, depth=12, mlp_ratio=4, layer_scale=0.1),
        img_size=(128, 160),
        final_norm=True,
    ),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=192,
        in_stride=8,
        out_strides=(8, 16, 32, 64, 128),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
