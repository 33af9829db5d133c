# Semantic FPN with ConvMLP-S from scratch on the synthetic shapes: minutes on two CPU cores.
_base_ = './fpn_convmlp_s_512x512_40k_ade20k.py'
data_root = 'data/shapes/ade/'
shapes = dict(task='segmentation', root=data_root)  # generated there on first use

model = dict(data_preprocessor=dict(size=(96, 96)), backbone=dict(init_cfg=None), decode_head=dict(num_classes=4))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [  # the image and its mirror
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
data = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(
        classes=('background', 'circle', 'square', 'triangle'),
        palette=[[120, 120, 120], [230, 25, 75], [60, 180, 75], [255, 225, 25]],
    ),
    reduce_zero_label=True,
)
train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(num_workers=2, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
del data

train_cfg = dict(max_iters=1200, val_interval=1200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=100, end=1200, by_epoch=False),
]
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=1))
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=500))
log_processor = dict(window_size=20)
auto_scale_lr = dict(base_batch_size=8)
