_base_ = ['_base_/resmlp.py', '_base_/imagenet.py', '_base_/resmlp_400e.py', '_base_/default_runtime.py']
model = dict(backbone=dict(arch='big_24'), head=dict(in_channels=768))
train_dataloader = dict(batch_size=256)
