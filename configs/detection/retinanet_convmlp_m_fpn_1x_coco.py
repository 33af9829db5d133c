_base_ = './retinanet_convmlp_s_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        arch='medium',
        init_cfg=dict(checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_m_imagenet.pth'),
    )
)
