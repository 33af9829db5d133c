_base_ = ['./fpn_convmlp_s_512x512_40k_ade20k.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
