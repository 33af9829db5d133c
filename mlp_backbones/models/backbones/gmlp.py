"""gMLP: Pay Attention to MLPs (arXiv 2105.08050).

The authors released no code; model and parameter names are those of timm
(https://github.com/huggingface/pytorch-image-models), whose weights load as they are. Images are normalized with mean
and standard deviation 127.5, unlike those of the other families.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...checkpoints import dialects
from ...registry import register_model
from ..layers.activation_checkpointing import Recomputed, recompute_activations
from ..layers.folding import absorb, without_affine
from ..layers.mlp import build_drop_path
from ..layers.token_mixing import TokenMixing
from .base import check_hidden, resolve_arch
from .isotropic import IsotropicBackbone

ARCHS = {
    'ti16': dict(patch_size=16, dim=128, depth=30, mlp_ratio=6.0),
    's16': dict(patch_size=16, dim=256, depth=30, mlp_ratio=6.0),
    'b16': dict(patch_size=16, dim=512, depth=30, mlp_ratio=6.0),
}
ALIASES = {'ti': 'ti16', 's': 's16', 'b': 'b16', 'tiny': 'ti16', 'small': 's16', 'base': 'b16'}


class SpatialGatingUnit(nn.Module):
    """The gate of one half of the channels: the other half, mixed over the tokens: (B, L, C) -> (B, L, C).

    Args:
        channels (int): C.
        grid (tuple[int, int]): Rows and columns of the token grid; L is their product.
        deploy (bool): The folded form.
    """

    def __init__(self, channels: int, grid: tuple[int, int], deploy: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, elementwise_affine=not deploy)
        self.proj = TokenMixing(grid, channels if deploy else None)
        # The gate starts open, so that a block starts as a plain MLP.
        nn.init.normal_(self.proj.weight, std=1e-6)
        if not deploy:
            nn.init.ones_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x))


class GatedMlp(nn.Module):
    """Two linear layers with a GELU and the spatial gating unit between them: (B, L, C) -> (B, L, C)."""

    def __init__(self, dim: int, hidden: int, grid: tuple[int, int], deploy: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.gate = SpatialGatingUnit(hidden // 2, grid, deploy)
        self.fc2 = nn.Linear(hidden // 2, dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.fc1(x).chunk(2, dim=-1)
        gate = recompute_activations(lambda v: self.gate(self.act(v)), self.gate, v)
        return recompute_activations(lambda u, gate: self.fc2(self.act(u) * gate), self.fc2, u, gate)


class GMLPBlock(Recomputed):
    """LayerNorm and gated MLP around a residual path: (B, L, C) -> (B, L, C)."""

    def __init__(self, dim: int, grid: tuple[int, int], mlp_ratio: float, drop_path_rate: float, deploy: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=not deploy)
        self.mlp_channels = GatedMlp(dim, int(dim * mlp_ratio), grid, deploy)
        self.drop_path = build_drop_path(drop_path_rate)

    def _forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp_channels(self.norm(x)))

    def layers_to_fold(self) -> list[nn.Module]:
        mlp = self.mlp_channels
        return [self.norm, mlp, mlp.fc1, mlp.gate, mlp.gate.norm, mlp.gate.proj]

    def switch_to_deploy(self) -> None:
        """Fold the weights and biases of both LayerNorms into the linear layers."""
        if self.norm.weight is None:
            return
        mlp = self.mlp_channels
        absorb(mlp.fc1, before=(self.norm.weight, self.norm.bias))
        mlp.gate.proj.absorb(mlp.gate.norm.weight, mlp.gate.norm.bias)
        self.norm, mlp.gate.norm = without_affine(self.norm), without_affine(mlp.gate.norm)


@register_model
class GMLP(IsotropicBackbone):
    """gMLP as a classifier's body or, with ``SimpleFeaturePyramid``, a multi-scale feature extractor.

    [Pay Attention to MLPs](https://arxiv.org/abs/2105.08050); the published weights are
    [timm's](https://github.com/huggingface/pytorch-image-models).

    Args:
        arch (str | dict): 'ti16', 's16' or 'b16' ('ti', 's', 'b'), or a dict with the keys ``patch_size``, ``dim``,
            ``depth`` and ``mlp_ratio``. Defaults to 'ti16'.
        **kwargs: Further arguments of ``IsotropicBackbone`` (``img_size``, ``token_mixing``, ``cross_window``,
            ``out_indices``) and ``BaseBackbone``; ``final_norm`` is a LayerNorm.

    Shape:
        - Input: (N, in_channels, H, W), H and W from 32 pixels up, odd ones too ('fixed': ``img_size``).
        - Output: a tuple of maps (N, dim, ceil(H / patch_size), ceil(W / patch_size)).

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.

    Examples:
        >>> import torch
        >>> from mlp_backbones import GMLP
        >>> [tuple(f.shape) for f in GMLP('ti16').eval()(torch.rand(1, 3, 256, 320))]
        [(1, 128, 16, 20)]
    """

    family = dialects.GMLP
    training_mark = r'^blocks\.\d+\.norm\.weight$'
    deploy_mark = r'\.gate\.proj\.shift$'

    def __init__(self, arch: str | Mapping = 'ti16', **kwargs: Any) -> None:
        settings = resolve_arch('GMLP', arch, ARCHS, ALIASES)
        dim, mlp_ratio = settings['dim'], settings['mlp_ratio']
        check_hidden('GMLP', [dim], [mlp_ratio], divisor=2)  # it is cut in halves
        super().__init__(dim, settings['depth'], settings['patch_size'], **kwargs)
        self.blocks.extend(
            GMLPBlock(dim, self.grid, mlp_ratio, self.drop_path_rate, self.deploy) for _ in range(self.num_built)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6) if self.final_norm else None
        self._finish()
