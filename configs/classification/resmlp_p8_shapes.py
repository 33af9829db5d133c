# A small ResMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule are ConvMLP-S's but for the learning rate.
_base_ = './convmlp_s_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mlp_backbones.ResMLP',
        arch=dict(patch_size=8, dim=192, depth=12, mlp_ratio=4, layer_scale=0.1),
        img_size=64,
        final_norm=True,
    ),
    head=dict(in_channels=192),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
