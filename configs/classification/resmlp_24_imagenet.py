_base_ = './resmlp_12_imagenet.py'
model = dict(backbone=dict(arch='24', drop_path_rate=0.1))
