_base_ = './gmlp_s16_imagenet.py'
model = dict(backbone=dict(arch='ti16'), head=dict(in_channels=128))
