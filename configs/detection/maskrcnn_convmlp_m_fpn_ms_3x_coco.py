_base_ = ['./maskrcnn_convmlp_s_fpn_ms_3x_coco.py', '../_base_/backbones/convmlp_m.py']
model = dict(backbone=_base_.pop('backbone'))
