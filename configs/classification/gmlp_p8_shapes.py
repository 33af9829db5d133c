# A small gMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule are ConvMLP-S's but for the learning rate.
_base_ = './convmlp_s_shapes.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mlp_backbones.GMLP',
        arch=dict(patch_size=8, dim=128, depth=12, mlp_ratio=6),
        img_size=64,
        final_norm=True,
    ),
    head=dict(in_channels=128),
)
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
optim_wrapper = dict(optimizer=dict(lr=1e-3))
