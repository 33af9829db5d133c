_base_ = ['./convmlp_s_cifar100.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
