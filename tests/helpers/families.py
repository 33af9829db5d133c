"""One small and every published variant of each family, for tests that hold for all."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP
from mlp_backbones.models.backbones import convmlp, gmlp, repmlp, resmlp
from mlp_backbones.models.layers.norm import Affine

TINY = {
    ConvMLP: dict(
        arch=dict(channels=8, conv_blocks=1, dims=(8, 16, 24), depths=(1, 2, 1), mlp_ratios=(2, 2, 2)),
        drop_path_rate=0.0,
    ),
    ResMLP: dict(arch=dict(patch_size=16, dim=16, depth=4, mlp_ratio=2, layer_scale=0.5), img_size=64),
    GMLP: dict(arch=dict(patch_size=16, dim=16, depth=4, mlp_ratio=4), img_size=64),
    RepMLP: dict(arch=dict(channels=(8, 16, 16, 32), depths=(1, 1, 2, 1), share_sets=(1, 2, 4, 8), img_size=64)),
}
FAMILIES = list(TINY)
ISOTROPIC = [ResMLP, GMLP]
VARIANTS = [
    (cls, arch)
    for cls, module in ((ConvMLP, convmlp), (ResMLP, resmlp), (GMLP, gmlp), (RepMLP, repmlp))
    for arch in module.ARCHS
]


class Classifier(nn.Module):
    """A backbone with the head of the originals: the mean over the positions, and a linear layer; their names."""

    def __init__(self, cls, arch, **kwargs):
        super().__init__()
        self.backbone = cls(arch, **{'out_indices': -1, 'final_norm': True, **kwargs})
        self.head = nn.Linear(self.backbone.out_channels[-1], 1000)

    def forward(self, x):
        return self.head(self.backbone(x)[-1].mean((2, 3)))


def named(value):
    """The name of a class or an arch, for the ids of tests."""
    return getattr(value, '__name__', value)


def tiny(cls, seed=0, **kwargs):
    """A small model whose every parameter and statistic differs from its initial value, so a forgotten one shows."""
    torch.manual_seed(seed)
    return randomise(cls(**{**TINY[cls], **kwargs}), token_std=0.2)


def randomise(model, token_std=0.02):
    """Draw what starts at 0 or 1, or almost, at random."""
    for module in model.modules():
        if isinstance(module, (_BatchNorm, nn.LayerNorm)) and module.weight is not None:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, Affine):
            nn.init.uniform_(module.alpha, 0.5, 1.5)
            nn.init.uniform_(module.beta, -0.5, 0.5)
    for name, parameter in model.named_parameters():
        if name.endswith(('gate.proj.weight', 'linear_tokens.weight')):
            nn.init.normal_(parameter, std=token_std)
        elif name.endswith(('.ls1', '.ls2')):
            nn.init.uniform_(parameter, 0.1, 0.5)
        elif name.startswith('propagations.'):
            nn.init.normal_(parameter, std=0.1)
    return model
