_base_ = ['./upernet_convmlp_s_512x512_160k_ade20k.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
