_base_ = ['./maskrcnn_convmlp_s_fpn_1x_coco.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
