# CIFAR-100: as CIFAR-10, except mean, std and number of classes.
_base_ = './cifar10.py'
data_root = 'data/cifar100/'
data_preprocessor = dict(num_classes=100, mean=[129.31, 124.109, 112.404], std=[68.213, 65.407, 70.406])
train_pipeline = _base_.train_pipeline
for [rand_augment] in train_pipeline[-3].transforms:
    rand_augment.hparams.update(pad_val=[129, 124, 112])
train_pipeline[-2].update(fill_color=[129.31, 124.109, 112.404], fill_std=[68.213, 65.407, 70.406])  # RandomErasing
train_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
del rand_augment
