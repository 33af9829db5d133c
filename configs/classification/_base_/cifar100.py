# CIFAR-100, as CIFAR-10 but for its mean, deviation and number of classes.
_base_ = './cifar10.py'
data_root = 'data/cifar100/'
data_preprocessor = dict(num_classes=100, mean=[129.31, 124.109, 112.404], std=[68.213, 65.407, 70.406])
train_pipeline = [
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.8, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[129, 124, 112], interpolation='bicubic'),
    ),
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        min_area_ratio=0.02,
        max_area_ratio=1 / 3,
        fill_color=[129.31, 124.109, 112.404],
        fill_std=[68.213, 65.407, 70.406],
    ),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
