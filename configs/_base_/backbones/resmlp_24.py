# ResMLP-24 for dense prediction, with its authors' distilled ImageNet-1k weights (facebookresearch/deit).
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.ResMLP',
    arch='24',
    final_norm=True,
    cross_window=True,
    drop_path_rate=0.1,
    init_cfg=dict(type='Pretrained', checkpoint='https://dl.fbaipublicfiles.com/deit/resmlp_24_dist.pth'),
)
