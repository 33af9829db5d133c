_base_ = [
    '_base_/semantic_fpn.py',
    '_base_/ade20k.py',
    '_base_/schedule_40k.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(
            type='Pretrained', checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_s_imagenet.pth'
        ),
    )
)
