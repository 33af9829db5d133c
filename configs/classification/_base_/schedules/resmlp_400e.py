# ResMLP on ImageNet-1k, 8 GPUs x 256 images: settings from facebookresearch/deit issue #106, and otherwise the defaults
# of that repository's main.py. Float32, as there; --amp is bfloat16, since activations overflow in float16.
# The drop path is 0.05 for 12 (issue #106), and 0.1 for 24, which is that of fine-tuning on CIFAR (issue #117). Not
# published: the drop path of 24, 36 and B24 on ImageNet, and whether 5e-3 was multiplied by main.py's factor of
# batch / 512 (line 350).
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
# As in timm: the cosine counts from epoch 0, warm-up replaces its first epochs, and the rate is constant in an epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=2e-4, by_epoch=True, begin=0, end=6),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=0, end=400, T_max=400),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Lamb', lr=5e-3, weight_decay=0.2, eps=1e-8, betas=(0.9, 0.999)),
    # No decay for affines, layer scales and biases.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={key: dict(decay_mult=0.0) for key in ('.alpha', '.beta', '.ls1', '.ls2')},
    ),
)
auto_scale_lr = dict(enable=False, base_batch_size=2048)
