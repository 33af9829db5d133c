# As schedule_40k.py, with warm-up, the learning rate and weight decay of the families without convolutions, and no
# decay for their norms, affines, layer scales and biases.
_base_ = './schedule_40k.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', eta_min=0.0, power=0.9, begin=1500, end=40000, by_epoch=False),
]
optim_wrapper = dict(
    optimizer=dict(lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={key: dict(decay_mult=0.0) for key in ('.alpha', '.beta', '.ls1', '.ls2')},
    ),
    clip_grad=dict(max_norm=1),
)
