_base_ = ['_base_/convmlp.py', '_base_/cifar10.py', '_base_/transfer_50e.py', '_base_/default_runtime.py']
model = dict(
    backbone=dict(
        arch='large',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_l_imagenet.pth'
        ),
    ),
    head=dict(in_channels=768, num_classes=10),
)
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
