# ResMLP-12 from scratch on the synthetic shapes; data and schedule are ConvMLP-S's but for the learning rate.
_base_ = './convmlp_s_shapes.py'
model = dict(
    backbone=dict(_delete_=True, type='mlp_backbones.ResMLP', arch='12', img_size=64, final_norm=True),
    head=dict(in_channels=384),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
