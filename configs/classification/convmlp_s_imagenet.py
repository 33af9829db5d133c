_base_ = ['_base_/convmlp.py', '_base_/imagenet.py', '_base_/imagenet_300e.py', '_base_/default_runtime.py']
