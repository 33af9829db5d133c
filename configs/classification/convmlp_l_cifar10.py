_base_ = ['./convmlp_s_cifar10.py', '../_base_/backbones/convmlp_l.py']
model = dict(backbone=_base_.pop('backbone'), head=dict(in_channels=768))
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
