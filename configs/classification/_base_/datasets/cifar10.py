# CIFAR-10 at 224 pixels, 128 images a GPU; downloaded by mmpretrain if missing. SHI-Labs/Convolutional-MLPs,
# configs/classification/finetuned/convmlp_s_cifar10.yml: random interpolation for each image.
data_root = 'data/cifar10/'
# The images are in RGB.
data_preprocessor = dict(num_classes=10, mean=[125.307, 122.961, 113.858], std=[62.985, 62.093, 66.708], to_rgb=False)
train_pipeline = [
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandomResizedCrop',
                    scale=224,
                    crop_ratio_range=(0.8, 1.0),
                    backend='pillow',
                    interpolation=kind,
                )
            ]
            for kind in ('bilinear', 'bicubic')
        ],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandAugment',
                    policies='timm_increasing',
                    num_policies=2,
                    total_level=10,
                    magnitude_level=9,
                    magnitude_std=0.5,
                    hparams=dict(pad_val=[125, 123, 114], interpolation=kind),
                )
            ]
            for kind in ('bilinear', 'bicubic')
        ],
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[125.307, 122.961, 113.858],
        fill_std=[62.985, 62.093, 66.708],
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='Resize', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    # The batches of a resumed run are those of an unbroken one.
    batch_sampler=dict(type='mlp_backbones.ResumableBatchSampler', drop_last=True),
    dataset=dict(type='CIFAR10', data_root=data_root, split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CIFAR10', data_root=data_root, split='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
