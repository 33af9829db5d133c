_base_ = [
    '_base_/models/retinanet_fpn.py',
    '_base_/datasets/coco_detection.py',
    '_base_/schedules/schedule_1x.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_s.py',
]
model = dict(backbone=_base_.pop('backbone'))
