_base_ = [
    '_base_/maskrcnn_fpn.py',
    '_base_/coco_instance.py',
    '_base_/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='mlp_backbones.RepMLP',
        arch='t224',
        # The authors' RepMLPNet-T224 is on Google Drive only: download it and give its path.
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/RepMLPNet-T224-train-acc76.62.pth'),
    ),
)
