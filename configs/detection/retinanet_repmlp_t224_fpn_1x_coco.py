# Starts from scratch: the authors' weights of RepMLPNet-T224 are on Google Drive only, linked in the README.md of
# DingXiaoH/RepMLP. To start from the downloaded file, use
#   --cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=FILE
# or inherit this config with
#   model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='FILE')))
_base_ = [
    '_base_/models/retinanet_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x_wd5e-2.py',
    '_base_/default_runtime.py',
]
model = dict(backbone=dict(type='mlp_backbones.RepMLP', arch='t224'))
