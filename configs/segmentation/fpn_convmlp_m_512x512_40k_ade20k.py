_base_ = './fpn_convmlp_s_512x512_40k_ade20k.py'
model = dict(
    backbone=dict(
        arch='medium',
        init_cfg=dict(checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_m_imagenet.pth'),
    )
)
