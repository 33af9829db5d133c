# RetinaNet with ConvMLP-S from scratch on the synthetic shapes: minutes on two CPU cores.
_base_ = './retinanet_convmlp_s_fpn_1x_coco.py'
data_root = 'data/shapes/coco/'
shapes = dict(task='detection', root=data_root)  # generated there on first use
classes = ('circle', 'square', 'triangle')

model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=len(classes)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
tta_pipeline = [  # the image and its mirror
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(160, 128), keep_ratio=True)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='LoadAnnotations', with_bbox=True)],
            [
                dict(
                    type='PackDetInputs',
                    meta_keys=(
                        *('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                        *('flip', 'flip_direction'),
                    ),
                )
            ],
        ],
    ),
]
data = dict(data_root=data_root, metainfo=dict(classes=classes))
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
del classes, data
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=11, val_interval=11)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=11, T_max=11, eta_min=1e-6, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.05), clip_grad=dict(max_norm=1))
default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
auto_scale_lr = dict(base_batch_size=8)
