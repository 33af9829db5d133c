"""gMLP: Pay Attention to MLPs (arXiv 2105.08050).

The authors released no code; model and parameter names are those of timm
(https://github.com/huggingface/pytorch-image-models), whose weights load as they are. Images are normalised with mean
and standard deviation 127.5, unlike those of the other families.
"""

from collections.abc import Mapping, Sequence
from typing import Optional, Union

from torch import Tensor, nn

from ..checks import check_flags
from ..layers import TokenMixing, drop_path, fold_before, take_affine
from ..registry import register_model
from .base import check_hidden, resolve_arch
from .isotropic import IsotropicBackbone

ARCHS = {
    'ti16': dict(patch_size=16, dim=128, depth=30, mlp_ratio=6.0),
    's16': dict(patch_size=16, dim=256, depth=30, mlp_ratio=6.0),
    'b16': dict(patch_size=16, dim=512, depth=30, mlp_ratio=6.0),
}
ALIASES = {'ti': 'ti16', 's': 's16', 'b': 'b16', 'tiny': 'ti16', 'small': 's16', 'base': 'b16'}


class SpatialGatingUnit(nn.Module):
    """One half of the channels, gated by the other half mixed over the tokens: (B, L, 2C) -> (B, L, C).

    Args:
        channels (int): C.
        grid (tuple[int, int]): Rows and columns of the token grid; L is their product.
    """

    def __init__(self, channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.proj = TokenMixing(grid)
        # The gate starts open, so that a block starts as a plain MLP.
        nn.init.normal_(self.proj.weight, std=1e-6)
        nn.init.ones_(self.proj.bias)

    def forward(self, x: Tensor) -> Tensor:
        u, v = x.chunk(2, dim=-1)
        return u * self.proj(self.norm(v))


class GatedMlp(nn.Module):
    """Two linear layers with a GELU and the spatial gating unit between them: (B, L, C) -> (B, L, C)."""

    def __init__(self, dim: int, hidden: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.gate = SpatialGatingUnit(hidden // 2, grid)
        self.fc2 = nn.Linear(hidden // 2, dim)
        for linear in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.gate(self.act(self.fc1(x))))


class GMLPBlock(nn.Module):
    """LayerNorm and gated MLP around a residual path: (B, L, C) -> (B, L, C)."""

    def __init__(self, dim: int, grid: tuple[int, int], mlp_ratio: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.mlp_channels = GatedMlp(dim, int(dim * mlp_ratio), grid)
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp_channels(self.norm(x)))

    def switch_to_deploy(self) -> None:
        """Fold the weights and biases of both LayerNorms into the linear layers."""
        if self.norm.weight is None:
            return
        mlp = self.mlp_channels
        fold_before(mlp.fc1, *take_affine(self.norm))
        mlp.gate.proj.fold_affine(*take_affine(mlp.gate.norm))


@register_model
class GMLP(IsotropicBackbone):
    """gMLP as a classifier's body or, with ``SimpleFeaturePyramid``, a multi-scale feature extractor.

    [Pay Attention to MLPs](https://arxiv.org/abs/2105.08050); the published weights are
    [timm's](https://github.com/huggingface/pytorch-image-models).

    Args:
        arch (str | dict): 'ti16', 's16' or 'b16' ('ti', 's', 'b'), or a dict with the keys ``patch_size``, ``dim``,
            ``depth`` and ``mlp_ratio``. Defaults to 'ti16'.
        img_size (int | Sequence[int]): Side, or (height, width), of the token grid in pixels, a multiple of the patch
            size. Defaults to 224, the size of the published weights.
        token_mixing (str): What happens to other sizes. 'window': the image is padded to whole windows of
            ``img_size``, weights stay exact, and cost grows linearly with the pixels. 'resize': weights of another
            grid are interpolated to ``img_size`` as they are loaded; images of other sizes are cut into windows of
            ``img_size``. 'fixed': images of ``img_size`` only. Defaults to 'window'.
        cross_window (bool): Add four zero-initialised depthwise convolutions over the whole map, through which windows
            talk to each other. Defaults to False.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (int | Sequence[int]): The blocks after which the map is returned; negative ones count from the
            end. Defaults to -1, the last one.
        frozen_stages (int): The patch embedding and the blocks up to and including this one are frozen.
            Defaults to -1, nothing.
        norm_eval (bool): Of no effect, this family has no BatchNorm. Defaults to False.
        final_norm (bool): Apply the last LayerNorm to the last block's map. Defaults to False.
        drop_path_rate (float): Stochastic depth rate, the same for every block. Defaults to 0.
        with_cp (bool): Recompute block activations in the backward pass to save memory. Defaults to False.
        deploy (bool): Build the folded form, for inference: it takes folded checkpoints, see ``switch_to_deploy``.
            Defaults to False.
        init_cfg (dict | list[dict], optional): mmengine's initialisation config.

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

    training_mark = r'^blocks\.\d+\.norm\.weight$'
    deploy_mark = r'\.gate\.proj\.shift$'

    def __init__(
        self,
        arch: Union[str, Mapping] = 'ti16',
        img_size: Union[int, Sequence[int]] = 224,
        token_mixing: str = 'window',
        cross_window: bool = False,
        in_channels: int = 3,
        out_indices: Union[int, Sequence[int]] = -1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        settings = resolve_arch('GMLP', arch, ARCHS, ALIASES)
        dim = settings['dim']
        check_hidden('GMLP', [dim], [settings['mlp_ratio']], divisor=2)  # it is cut in halves
        check_flags('GMLP', deploy=deploy)
        super().__init__(
            dim=dim,
            depth=settings['depth'],
            patch_size=settings['patch_size'],
            img_size=img_size,
            token_mixing=token_mixing,
            cross_window=cross_window,
            final_norm=final_norm,
            in_channels=in_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        self.blocks.extend(
            GMLPBlock(dim, self.grid, settings['mlp_ratio'], drop_path_rate) for _ in range(self.num_built)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6) if final_norm else None
        self._finish(deploy)
