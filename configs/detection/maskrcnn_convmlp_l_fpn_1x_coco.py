_base_ = './maskrcnn_convmlp_s_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_l_imagenet.pth'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
