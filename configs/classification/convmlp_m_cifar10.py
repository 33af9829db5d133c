_base_ = ['./convmlp_s_cifar10.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
