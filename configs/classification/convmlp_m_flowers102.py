_base_ = ['_base_/convmlp.py', '_base_/flowers102.py', '_base_/transfer_50e.py', '_base_/default_runtime.py']
model = dict(
    backbone=dict(
        arch='medium',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_m_imagenet.pth'
        ),
    ),
    head=dict(num_classes=102),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 300, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-8, by_epoch=True, begin=10, end=50, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=768)
