# Mask R-CNN with ConvMLP-S from scratch on the synthetic shapes: minutes on two CPU cores.
_base_ = './maskrcnn_convmlp_s_fpn_1x_coco.py'
data_root = 'data/shapes/coco/'
shapes = dict(task='detection', root=data_root)  # generated there on first use
classes = ('circle', 'square', 'triangle')

model = dict(
    backbone=dict(init_cfg=None),
    roi_head=dict(bbox_head=dict(num_classes=len(classes)), mask_head=dict(num_classes=len(classes))),
    # Few proposals, since the heads take most of the time on a CPU.
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
data = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
del classes, data
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=5, val_interval=5)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=5, T_max=5, eta_min=1e-6, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=0.05), clip_grad=dict(max_norm=1))
default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
auto_scale_lr = dict(base_batch_size=8)
