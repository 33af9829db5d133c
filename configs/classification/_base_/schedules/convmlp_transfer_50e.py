# ConvMLP fine-tuned from ImageNet-1k: SHI-Labs/Convolutional-MLPs, configs/classification/finetuned/*.yml. The number
# of GPUs is not published: 8, as for ImageNet, are assumed.
# Warm-up of 10 epochs from 1e-6, cosine to epoch 50, 10 more at the minimum; mixed precision, no moving average.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# As in timm: the cosine counts from epoch 0, warm-up replaces its first epochs, and the rate is constant in an epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 300, by_epoch=True, begin=0, end=10),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=51, T_max=50),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
