_base_ = ['./fpn_convmlp_s_512x512_40k_ade20k.py', '../_base_/backbones/convmlp_l.py']
model = dict(backbone=_base_.pop('backbone'), neck=dict(in_channels=[96, 192, 384, 768]))
