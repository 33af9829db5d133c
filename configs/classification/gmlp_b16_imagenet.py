_base_ = './gmlp_s16_imagenet.py'
model = dict(backbone=dict(arch='b16'), head=dict(in_channels=512))
