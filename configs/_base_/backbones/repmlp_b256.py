# RepMLP-B256 with mmpretrain's copy of its authors' ImageNet-1k weights.
# Usage: `model = dict(backbone=_base_.pop('backbone'))`; `pop` removes the top-level `backbone` from the config.
backbone = dict(
    type='mlp_backbones.RepMLP',
    arch='b256',
    init_cfg=dict(
        type='Pretrained',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/repmlp/repmlp-base_3rdparty_8xb64_in1k-256px_20220330-7c5a91ce.pth',
    ),
)
