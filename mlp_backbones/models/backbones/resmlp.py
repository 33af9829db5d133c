"""ResMLP: Feedforward networks for image classification with data-efficient training (arXiv 2105.03404).

Original code: https://github.com/facebookresearch/deit. Parameter names are those of timm's release
(https://github.com/huggingface/pytorch-image-models), the one that most weights come in.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import dialects
from ...registry import register_model
from ..layers.activation_checkpointing import Recomputed
from ..layers.folding import absorb
from ..layers.mlp import Mlp, build_drop_path
from ..layers.norm import Affine
from ..layers.token_mixing import TokenMixing
from .base import check_hidden, resolve_arch
from .isotropic import IsotropicBackbone

# `layer_scale` is the initial value of both scales; deeper models start closer to the identity.
ARCHS = {
    '12': dict(patch_size=16, dim=384, depth=12, mlp_ratio=4.0, layer_scale=0.1),
    '24': dict(patch_size=16, dim=384, depth=24, mlp_ratio=4.0, layer_scale=1e-5),
    '36': dict(patch_size=16, dim=384, depth=36, mlp_ratio=4.0, layer_scale=1e-6),
    'big_24': dict(patch_size=8, dim=768, depth=24, mlp_ratio=4.0, layer_scale=1e-6),
}
ALIASES = {'s12': '12', 's24': '24', 's36': '36', 'b24': 'big_24'}


class ResMLPBlock(Recomputed):
    """Token mixing, then a channel MLP, each after an affine and scaled per channel: (B, L, C) -> (B, L, C)."""

    norm1: Any  # an affine, or in deploy form an identity
    norm2: Any
    ls1: nn.Parameter
    ls2: nn.Parameter

    def __init__(
        self, dim: int, grid: tuple[int, int], mlp_ratio: float, layer_scale: float, drop_path_rate: float, deploy: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.Identity() if deploy else Affine(dim)
        self.linear_tokens = TokenMixing(grid, dim if deploy else None)
        self.norm2 = nn.Identity() if deploy else Affine(dim)
        self.mlp_channels = Mlp(dim, int(dim * mlp_ratio))
        for name in ('ls1', 'ls2'):
            scale = None if deploy else nn.Parameter(torch.full((dim,), float(layer_scale)))
            self.register_parameter(name, scale)
        self.drop_path = build_drop_path(drop_path_rate)

    def _forward(self, x: Tensor) -> Tensor:
        if self.ls1 is None:  # folded
            x = self.linear_tokens(x, residual=x)
            return x + self.mlp_channels(x)
        x = torch.addcmul(x, self.ls1, self.drop_path(self.linear_tokens(self.norm1(x))))
        return torch.addcmul(x, self.ls2, self.drop_path(self.mlp_channels(self.norm2(x))))

    def layers_to_fold(self) -> list[nn.Module]:
        mlp = self.mlp_channels
        return [self.norm1, self.linear_tokens, self.norm2, mlp, mlp.fc1, mlp.fc2]

    def switch_to_deploy(self) -> None:
        """Fold the affines and the layer scales into the linear layers."""
        if self.ls1 is None:
            return
        self.linear_tokens.absorb(self.norm1.alpha, self.norm1.beta, after=self.ls1)
        absorb(self.mlp_channels.fc1, before=(self.norm2.alpha, self.norm2.beta))
        absorb(self.mlp_channels.fc2, after=(self.ls2, None))
        self.norm1, self.norm2 = nn.Identity(), nn.Identity()
        self.register_parameter('ls1', None)
        self.register_parameter('ls2', None)


@register_model
class ResMLP(IsotropicBackbone):
    """ResMLP as a classifier's body or, with ``SimpleFeaturePyramid``, a multi-scale feature extractor.

    [ResMLP: Feedforward networks for image classification with data-efficient
    training](https://arxiv.org/abs/2105.03404), [original code](https://github.com/facebookresearch/deit).

    Args:
        arch (str | dict): '12', '24', '36' (patches of 16 pixels) or 'big_24' (of 8), or a dict with the keys
            ``patch_size``, ``dim``, ``depth``, ``mlp_ratio`` and ``layer_scale``. Defaults to '12'.
        **kwargs: Further arguments of ``IsotropicBackbone`` (``img_size``, ``token_mixing``, ``cross_window``,
            ``out_indices``) and ``BaseBackbone``; ``final_norm`` is an affine.

    Shape:
        - Input: (N, in_channels, H, W), H and W from 32 pixels up, odd ones too ('fixed': ``img_size``).
        - Output: a tuple of maps (N, dim, ceil(H / patch_size), ceil(W / patch_size)).

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.

    Examples:
        >>> import torch
        >>> from mlp_backbones import ResMLP
        >>> [tuple(f.shape) for f in ResMLP('12', out_indices=(5, 11)).eval()(torch.rand(1, 3, 256, 320))]
        [(1, 384, 16, 20), (1, 384, 16, 20)]
    """

    family = dialects.RESMLP
    amp_dtype = 'bfloat16'
    training_mark = r'^blocks\.\d+\.norm1\.alpha$'
    deploy_mark = r'\.linear_tokens\.shift$'

    def __init__(self, arch: str | Mapping = '12', **kwargs: Any) -> None:
        settings = resolve_arch('ResMLP', arch, ARCHS, ALIASES)
        dim, mlp_ratio = settings['dim'], settings['mlp_ratio']
        check_hidden('ResMLP', [dim], [mlp_ratio])
        super().__init__(dim, settings['depth'], settings['patch_size'], **kwargs)
        self.blocks.extend(
            ResMLPBlock(dim, self.grid, mlp_ratio, settings['layer_scale'], self.drop_path_rate, self.deploy)
            for _ in range(self.num_built)
        )
        self.norm = Affine(dim) if self.final_norm else None
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self._finish()
