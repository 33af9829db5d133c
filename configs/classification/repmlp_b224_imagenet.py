_base_ = './repmlp_t224_imagenet.py'
model = dict(backbone=dict(arch='b224'), head=dict(in_channels=768))
