_base_ = './repmlp_t256_imagenet.py'
model = dict(backbone=dict(arch='d256'), head=dict(in_channels=640))
