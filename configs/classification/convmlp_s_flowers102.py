_base_ = ['./convmlp_m_flowers102.py', '../_base_/backbones/convmlp_s.py']
model = dict(backbone=_base_.pop('backbone'))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(start_factor=1 / 500)  # from 1e-6, as for the other datasets
optim_wrapper = dict(optimizer=dict(lr=5e-4))
