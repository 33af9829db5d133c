_base_ = ['_base_/resmlp.py', '_base_/imagenet.py', '_base_/resmlp_400e.py', '_base_/default_runtime.py']
model = dict(backbone=dict(arch='36'))
train_dataloader = dict(batch_size=256)
