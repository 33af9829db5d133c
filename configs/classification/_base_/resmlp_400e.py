# The original recipe: LAMB, 400 epochs, batch 2048 (8 GPUs x 256). Mixed precision is bfloat16: activations outgrow
# float16. No decay for affines, layer scales and biases.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=2e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5, end=400, convert_to_iter_based=True),
]
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='Lamb', lr=5e-3, weight_decay=0.2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={key: dict(decay_mult=0.0) for key in ('.alpha', '.beta', '.ls1', '.ls2')},
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=2048)
