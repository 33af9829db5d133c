_base_ = './resmlp_12_imagenet.py'
model = dict(backbone=dict(arch='36', drop_path_rate=0.1))  # our choice of drop path
