# Mask R-CNN with ResMLP-12 from scratch on the synthetic shapes; data and schedule are ConvMLP-S's.
_base_ = './maskrcnn_convmlp_s_fpn_shapes.py'
model = dict(
    backbone=dict(_delete_=True, type='mlp_backbones.ResMLP', arch='12', img_size=(128, 160), final_norm=True),
    neck=dict(
        _delete_=True,
        type='mlp_backbones.SimpleFeaturePyramid',
        in_channels=384,
        out_strides=(4, 8, 16, 32, 64),
    ),
)
