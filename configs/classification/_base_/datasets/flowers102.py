# Oxford Flowers-102, 96 images a GPU: SHI-Labs/Convolutional-MLPs, configs/classification/finetuned/
# convmlp_s_flowers102.yml. One folder per class, `train/1/` to `train/102/` with 6,552 images and `valid/` with 818.
# This is not the official split (see convmlp_s_flowers102_official.py), and results are not comparable with it.
# Training images are augmented as those of CIFAR-10.
_base_ = './cifar10.py'
data_root = 'data/flowers102/'
data_preprocessor = dict(num_classes=102, mean=[111.002, 96.212, 73.236], std=[75.633, 62.602, 68.799], to_rgb=True)
train_pipeline = [dict(type='LoadImageFromFile'), *_base_.train_pipeline]  # reads images in BGR
for [rand_augment] in train_pipeline[-3].transforms:
    rand_augment.hparams.update(pad_val=[73, 96, 111])
train_pipeline[-2].update(fill_color=[73.236, 96.212, 111.002], fill_std=[68.799, 62.602, 75.633])  # RandomErasing
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
data = dict(
    _delete_=True,
    type='mlp_backbones.CustomDataset',  # mmpretrain's sorts folders alphabetically: 1, 10, 100
    data_root=data_root,
    classes=[str(number) for number in range(1, 103)],
)
train_dataloader = dict(batch_size=96, dataset=dict(data_prefix='train', pipeline=train_pipeline, **data))
val_dataloader = dict(batch_size=96, dataset=dict(data_prefix='valid', pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
del rand_augment, data
