# ConvMLP-S with its authors' ImageNet-1k weights (SHI-Labs/Convolutional-MLPs).
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.ConvMLP',
    arch='small',
    init_cfg=dict(
        type='Pretrained', checkpoint='https://shi-labs.com/projects/convmlp/checkpoints/convmlp_s_imagenet.pth'
    ),
)
