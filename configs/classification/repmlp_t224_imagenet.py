_base_ = ['_base_/repmlp.py', '_base_/imagenet_repmlp_224.py', '_base_/repmlp_100e.py', '_base_/default_runtime.py']
