_base_ = ['_base_/gmlp.py', '_base_/imagenet_gmlp.py', '_base_/gmlp_300e.py', '_base_/default_runtime.py']
model = dict(backbone=dict(arch='s16', drop_path_rate=0.05), head=dict(in_channels=256))
train_dataloader = dict(batch_size=512)
