# ConvMLP-S from scratch on the synthetic shapes, 64x64 pixels: minutes on two CPU cores.
_base_ = ['_base_/models/convmlp.py', '_base_/datasets/imagenet.py', '_base_/default_runtime.py']
data_root = 'data/shapes/imagenet/'
shapes = dict(task='classification', root=data_root)  # generated there on first use
classes = ('circle', 'square', 'triangle')

model = dict(head=dict(num_classes=len(classes)))
data_preprocessor = dict(num_classes=len(classes))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.6, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
data = dict(_delete_=True, type='CustomDataset', data_root=data_root, classes=classes)
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    batch_sampler=dict(drop_last=False),
    dataset=dict(data_prefix='train', pipeline=train_pipeline, **data),
)
val_dataloader = dict(batch_size=50, num_workers=2, dataset=dict(data_prefix='val', pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
del classes, data
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=16, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-6, by_epoch=True, begin=2, end=16, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='OptimWrapper',  # float32, for CPUs
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=1),
)
custom_hooks = [dict(type='EMAHook', momentum=0.01, priority='ABOVE_NORMAL')]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=4))
auto_scale_lr = dict(enable=False, base_batch_size=32)
