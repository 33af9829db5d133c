# As imagenet.py, with gMLP's normalization, and the borders and crop ratio (0.875) of PaddleViT's recipe
# (BR-IDL/PaddleViT, image_classification/gMLP, config.py and augment.py; there, rotated images have black borders).
_base_ = './imagenet.py'
data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
train_pipeline = _base_.train_pipeline
train_pipeline[-3].update(hparams=dict(pad_val=[128, 128, 128], interpolation='nearest'))  # RandAugment
train_pipeline[-2].update(fill_color=[127.5, 127.5, 127.5], fill_std=[127.5, 127.5, 127.5])  # RandomErasing
test_pipeline = _base_.test_pipeline
test_pipeline[-3].update(scale=256)  # ResizeEdge
train_dataloader = dict(batch_size=64, batch_sampler=dict(drop_last=False), dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
