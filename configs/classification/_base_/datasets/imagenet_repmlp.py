# RepMLPNet's data, 8 GPUs x 32 images: DingXiaoH/RepMLP, data/build.py. Its rand-augment, "raug15" (randaug.py), always
# applies two of 16 operations at a level from 0 to 14 (of 10), which also sets the sign of color and contrast changes.
# For testing, the short edge is resized to the input size, 224 pixels.
_base_ = './imagenet.py'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bilinear'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandomChoice',
        transforms=[
            [
                dict(
                    type='RandAugment',
                    policies=[
                        dict(type='AutoContrast', prob=1.0),
                        dict(type='Equalize', prob=1.0),
                        dict(type='Invert', prob=1.0),
                        dict(type='Rotate', prob=1.0, magnitude_range=(0, 30)),
                        dict(type='Posterize', prob=1.0, magnitude_range=(-1, 3)),
                        dict(type='Solarize', prob=1.0, magnitude_range=(0, 256)),
                        dict(type='SolarizeAdd', prob=1.0, magnitude_range=(0, 110)),
                        dict(type='ColorTransform', prob=1.0, magnitude_range=(-0.9, 0.9), random_negative_prob=0.0),
                        dict(type='Contrast', prob=1.0, magnitude_range=(-0.9, 0.9), random_negative_prob=0.0),
                        dict(type='Brightness', prob=1.0, magnitude_range=(-0.9, 0.9), random_negative_prob=0.0),
                        dict(type='Sharpness', prob=1.0, magnitude_range=(-0.9, 0.9), random_negative_prob=0.0),
                        dict(type='Shear', prob=1.0, magnitude_range=(0, 0.3), direction='horizontal'),
                        dict(type='Shear', prob=1.0, magnitude_range=(0, 0.3), direction='vertical'),
                        dict(type='Translate', prob=1.0, magnitude_range=(0, 0.45), direction='horizontal'),
                        dict(type='Translate', prob=1.0, magnitude_range=(0, 0.45), direction='vertical'),
                        dict(type='Cutout', prob=1.0, magnitude_range=(0, 40), pad_val=[113, 122, 125]),
                    ],
                    num_policies=2,
                    total_level=10,
                    magnitude_level=14,
                    magnitude_std='inf',
                    hparams=dict(pad_val=[128, 128, 128], interpolation=kind),
                )
            ]
            for kind in ('bilinear', 'bicubic')
        ],
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bilinear'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=32, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
