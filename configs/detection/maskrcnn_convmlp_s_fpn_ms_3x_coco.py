# A config of ours, with mmdetection's recipe of Mask R-CNN with Swin (ms-crop-3x). Its accuracy is not known.
_base_ = [
    '_base_/models/maskrcnn_fpn.py',
    '_base_/datasets/coco_instance_ms.py',
    '_base_/schedules/schedule_3x.py',
    '_base_/default_runtime.py',
    '../_base_/backbones/convmlp_s.py',
]
model = dict(backbone=_base_.pop('backbone'))
