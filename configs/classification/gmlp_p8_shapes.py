# A small gMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule as for ConvMLP-S, except the learning rate.
_base_ = ['./convmlp_s_shapes.py', '../_base_/backbones/gmlp_p8.py']
model = dict(
    backbone=dict(_delete_=True, img_size=64, **_base_.pop('backbone')),
    head=dict(in_channels=128),
)
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
optim_wrapper = dict(optimizer=dict(lr=1e-3))
