# gMLP-S/16 for dense prediction, with timm's ImageNet-1k weights.
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.GMLP',
    arch='s16',
    final_norm=True,
    cross_window=True,
    drop_path_rate=0.05,
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/gmlp_s16_224_raa-10536d42.pth',
    ),
)
