"""ResMLP: Feedforward networks for image classification with data-efficient training (arXiv 2105.03404).

Original code: https://github.com/facebookresearch/deit. Parameter names are those of timm's release
(https://github.com/huggingface/pytorch-image-models), the one that most weights come in.
"""

from collections.abc import Mapping, Sequence
from typing import Optional, Union

import torch
from torch import Tensor, nn

from ..checks import check_flags
from ..layers import Affine, Mlp, TokenMixing, drop_path, fold_after, fold_before
from ..registry import register_model
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


class ResMLPBlock(nn.Module):
    """Token mixing, then a channel MLP, each after an affine and scaled per channel: (B, L, C) -> (B, L, C)."""

    def __init__(
        self, dim: int, grid: tuple[int, int], mlp_ratio: float, layer_scale: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        self.norm1 = Affine(dim)
        self.linear_tokens = TokenMixing(grid)
        self.norm2 = Affine(dim)
        self.mlp_channels = Mlp(dim, int(dim * mlp_ratio))
        self.ls1 = nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.ls2 = nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        if self.ls1 is None:  # folded
            x = self.linear_tokens(x, residual=x)
            return x + self.mlp_channels(x)
        x = torch.addcmul(x, self.ls1, self.drop_path(self.linear_tokens(self.norm1(x))))
        return torch.addcmul(x, self.ls2, self.drop_path(self.mlp_channels(self.norm2(x))))

    def switch_to_deploy(self) -> None:
        """Fold the affines and the layer scales into the linear layers."""
        if self.ls1 is None:
            return
        self.linear_tokens.fold_affine(self.norm1.alpha, self.norm1.beta, after=self.ls1)
        fold_before(self.mlp_channels.fc1, self.norm2.alpha, self.norm2.beta)
        fold_after(self.mlp_channels.fc2, self.ls2)
        for name in ('norm1', 'norm2'):
            self.add_module(name, nn.Identity())
        for name in ('ls1', 'ls2'):
            self.register_parameter(name, None)


@register_model
class ResMLP(IsotropicBackbone):
    """ResMLP as a classifier's body or, with ``SimpleFeaturePyramid``, a multi-scale feature extractor.

    [ResMLP: Feedforward networks for image classification with data-efficient
    training](https://arxiv.org/abs/2105.03404), [original code](https://github.com/facebookresearch/deit).

    Args:
        arch (str | dict): '12', '24', '36' (patches of 16 pixels) or 'big_24' (of 8), or a dict with the keys
            ``patch_size``, ``dim``, ``depth``, ``mlp_ratio`` and ``layer_scale``. Defaults to '12'.
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
        final_norm (bool): Apply the last affine to the last block's map. Defaults to False.
        drop_path_rate (float): Stochastic depth rate, the same for every block as in the original. Defaults to 0.
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
        >>> from mlp_backbones import ResMLP
        >>> [tuple(f.shape) for f in ResMLP('12', out_indices=(5, 11)).eval()(torch.rand(1, 3, 256, 320))]
        [(1, 384, 16, 20), (1, 384, 16, 20)]
    """

    training_mark = r'^blocks\.\d+\.norm1\.alpha$'
    deploy_mark = r'\.linear_tokens\.shift$'

    def __init__(
        self,
        arch: Union[str, Mapping] = '12',
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
        settings = resolve_arch('ResMLP', arch, ARCHS, ALIASES)
        dim = settings['dim']
        check_hidden('ResMLP', [dim], [settings['mlp_ratio']])
        check_flags('ResMLP', deploy=deploy)
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
            ResMLPBlock(dim, self.grid, settings['mlp_ratio'], settings['layer_scale'], drop_path_rate)
            for _ in range(self.num_built)
        )
        self.norm = Affine(dim) if final_norm else None
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self._finish(deploy)
