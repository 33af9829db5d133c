_base_ = [
    '_base_/maskrcnn_fpn.py',
    '_base_/coco_instance.py',
    '_base_/schedule_1x.py',
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
