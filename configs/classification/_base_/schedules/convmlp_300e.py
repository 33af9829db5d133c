# ConvMLP on ImageNet-1k, 8 GPUs x 128: SHI-Labs/Convolutional-MLPs, configs/classification/convmlp_s_imagenet.yml and
# the defaults of its classification.py. Warm-up of 5 epochs from 1e-4, cosine to epoch 300, 10 more at the minimum.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=310, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# As in timm: the cosine counts from epoch 0, warm-up replaces its first epochs, and the rate is constant in an epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.2, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=301, T_max=300),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# Averages weights and BatchNorm statistics; validation and the best checkpoint use the average.
custom_hooks = [dict(type='EMAHook', momentum=4e-5, update_buffers=True, priority='ABOVE_NORMAL')]
auto_scale_lr = dict(enable=False, base_batch_size=1024)
