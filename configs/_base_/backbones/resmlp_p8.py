# A small ResMLP, patches of 8 pixels, for the synthetic shapes.
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.ResMLP',
    arch=dict(patch_size=8, dim=192, depth=12, mlp_ratio=4, layer_scale=0.1),
    final_norm=True,
)
