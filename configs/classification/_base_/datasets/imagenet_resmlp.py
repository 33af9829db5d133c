# As imagenet.py, with repeated augmentation: each image three times in a row, with a third of the images per epoch
# (facebookresearch/deit, main.py line 105, and samplers.py).
_base_ = './imagenet.py'
train_dataloader = dict(batch_size=256, sampler=dict(type='RepeatAugSampler', num_repeats=3))
val_dataloader = dict(batch_size=256)
test_dataloader = val_dataloader
