_base_ = ['_base_/convmlp.py', '_base_/cifar10.py', '_base_/transfer_50e.py', '_base_/default_runtime.py']
model = dict(
    backbone=dict(
        arch='medium',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_m_imagenet.pth'
        ),
    ),
    head=dict(num_classes=10),
)
