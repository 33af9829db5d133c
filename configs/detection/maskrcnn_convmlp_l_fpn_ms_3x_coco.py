_base_ = ['./maskrcnn_convmlp_s_fpn_ms_3x_coco.py', '../_base_/backbones/convmlp_l.py']
model = dict(backbone=_base_.pop('backbone'), neck=dict(in_channels=[96, 192, 384, 768]))
