# A small gMLP, patches of 8 pixels, for the synthetic shapes.
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.GMLP',
    arch=dict(patch_size=8, dim=128, depth=12, mlp_ratio=6),
    final_norm=True,
)
