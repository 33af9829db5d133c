# Mask R-CNN with a small ResMLP, patches of 8 pixels, from scratch on the synthetic shapes.
# Data and schedule as for ConvMLP-S.
_base_ = ['./maskrcnn_convmlp_s_fpn_shapes.py', '../_base_/backbones/resmlp_p8.py']
model = dict(
    backbone=dict(_delete_=True, img_size=(128, 160), **_base_.pop('backbone')),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=192,
        in_stride=8,
        out_strides=(4, 8, 16, 32, 64),
    ),
)
