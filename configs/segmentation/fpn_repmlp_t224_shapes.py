# Semantic FPN with RepMLP-T224 from scratch on the synthetic shapes; data and schedule as for ConvMLP-S.
_base_ = './fpn_convmlp_s_shapes.py'
model = dict(
    backbone=dict(_delete_=True, type='mlp_backbones.RepMLP', arch='t224', img_size=96),
)
