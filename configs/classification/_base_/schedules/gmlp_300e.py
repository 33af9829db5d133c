# gMLP on ImageNet-1k, 8 GPUs x 64 images. PaddleViT's recipe (BR-IDL/PaddleViT, image_classification/gMLP/config.py):
# gMLP's authors have released no code, and timm no recipe for its weights: their accuracy is not that of this recipe.
# PaddleViT gives the learning rates for 512 images and scales all three with the batch size: here 512, in its command
# 2,048.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# As in Paddle: warm-up from 1e-6, whose first epoch is already one step of 20 above it, then a cosine over 280 epochs.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05 + 0.95e-3, by_epoch=True, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=19, end=300, T_max=280),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.1, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=512)
