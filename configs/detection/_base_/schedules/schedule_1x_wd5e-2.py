# As schedule_1x.py, with the weight decay of the families without convolutions, and none for their norms, affines,
# layer scales and biases.
_base_ = './schedule_1x.py'
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={key: dict(decay_mult=0.0) for key in ('.alpha', '.beta', '.ls1', '.ls2')},
    ),
    clip_grad=dict(max_norm=1),
)
