# RetinaNet with RepMLP-T224 from scratch on the synthetic shapes; data and schedule as for ConvMLP-S.
_base_ = './retinanet_convmlp_s_fpn_shapes.py'
model = dict(
    backbone=dict(_delete_=True, type='mlp_backbones.RepMLP', arch='t224', img_size=(128, 160)),
)
