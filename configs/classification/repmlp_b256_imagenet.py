_base_ = ['_base_/repmlp.py', '_base_/imagenet_repmlp_256.py', '_base_/repmlp_100e.py', '_base_/default_runtime.py']
model = dict(backbone=dict(arch='b256'), head=dict(in_channels=768))
