_base_ = './resmlp_12_imagenet.py'
model = dict(backbone=dict(arch='big_24', drop_path_rate=0.1), head=dict(in_channels=768))  # our choice of drop path
