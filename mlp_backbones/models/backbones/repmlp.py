"""RepMLPNet: Hierarchical Vision MLP with Re-parameterized Locality (arXiv 2112.11081; RepMLP: 2105.01883).

Original code: https://github.com/DingXiaoH/RepMLP. Parameter names are those of its release, so its checkpoints, in
training and in deploy form, load as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import CheckpointError, dialects
from ...registry import register_model
from ...utils.checks import short_repr
from ...utils.errors import InvalidValue
from ..layers.activation_checkpointing import Recomputed, recompute_activations
from ..layers.conv_norm import ConvNorm, is_foldable
from ..layers.folding import absorb, affine_of, batch_norm_affine, fold_after, fold_before
from ..layers.mlp import build_drop_path
from ..layers.norm import build_norm
from ..layers.tiles import REDUCTION, RepMLPBlock
from ..layers.windows import pad_to_multiple
from .base import BaseBackbone, resolve_arch, resolve_img_size

# `img_size` is what the tiles of every stage cover: their sides are img_size / 4, / 8, / 16 and / 32 positions.
ARCHS = {
    't224': dict(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), share_sets=(1, 4, 16, 128), img_size=224),
    'b224': dict(channels=(96, 192, 384, 768), depths=(2, 2, 12, 2), share_sets=(1, 4, 32, 128), img_size=224),
    't256': dict(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), share_sets=(1, 4, 16, 128), img_size=256),
    'b256': dict(channels=(96, 192, 384, 768), depths=(2, 2, 12, 2), share_sets=(1, 4, 32, 128), img_size=256),
    'd256': dict(channels=(80, 160, 320, 640), depths=(2, 2, 18, 2), share_sets=(1, 4, 16, 128), img_size=256),
    'l256': dict(channels=(96, 192, 384, 768), depths=(2, 2, 18, 2), share_sets=(1, 4, 32, 256), img_size=256),
}
NORM_EPS = 1e-5  # of the original's BatchNorms
STRIDES = (4, 8, 16, 32)


class Downsample(Recomputed, ConvNorm):
    """A convolution over patches that do not overlap; a side that is not a multiple is padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: Mapping, deploy: bool) -> None:
        super().__init__(in_channels, out_channels, stride, norm_cfg, deploy, relu=True, stride=stride)
        self.stride = stride

    def _forward(self, x: Tensor) -> Tensor:
        return ConvNorm.forward(self, pad_to_multiple(x, (self.stride, self.stride)))


class FFNBlock(nn.Module):
    """Two 1x1 convolutions with BatchNorm, a GELU between them: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, hidden: int, norm_cfg: Mapping, deploy: bool) -> None:
        super().__init__()
        self.ffn_fc1 = ConvNorm(channels, hidden, 1, norm_cfg, deploy)
        self.ffn_fc2 = ConvNorm(hidden, channels, 1, norm_cfg, deploy)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y = recompute_activations(self._activated, self.ffn_fc1.bn, self.ffn_fc1.conv(x))
        return self.ffn_fc2.bn(y)

    def _activated(self, x: Tensor) -> Tensor:
        return self.ffn_fc2.conv(self.act(self.ffn_fc1.bn(x)))


class RepMLPUnit(Recomputed):
    """RepMLP block and FFN, each after a BatchNorm and around a residual path: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(
        self,
        channels: int,
        tile: tuple[int, int],
        share_sets: int,
        norm_cfg: Mapping,
        drop_path_rate: float,
        deploy: bool,
    ) -> None:
        super().__init__()
        self.repmlp_block = RepMLPBlock(channels, tile, share_sets, norm_cfg, deploy)
        self.ffn_block = FFNBlock(channels, channels * 4, norm_cfg, deploy)
        self.prebn1 = build_norm(norm_cfg, channels)
        self.prebn2 = nn.Identity() if deploy else build_norm(norm_cfg, channels)
        self.drop_path = build_drop_path(drop_path_rate)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.repmlp_block(self.prebn1(x)))
        return x + self.drop_path(self.ffn_block(self.prebn2(x)))

    def layers_to_fold(self) -> list[nn.Module]:
        return [self.prebn2, self.ffn_block, self.ffn_block.ffn_fc1, self.ffn_block.ffn_fc1.conv]

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorm before the FFN into it; block and FFN fold themselves.

        The other one stays: the share sets' weights are common to channels that it treats differently.
        """
        if not isinstance(self.prebn2, nn.Identity):
            absorb(self.ffn_block.ffn_fc1.conv, before=affine_of(self.prebn2))
            self.prebn2 = nn.Identity()


def fold_original_deploy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the BatchNorms that the original's deploy form keeps; a pure function, computed in float64.

    Args:
        tensors (Mapping[str, Tensor]): All or some of a backbone's, by our names.

    Returns:
        dict[str, Tensor]: As ``switch_to_deploy`` leaves them. A BatchNorm that is not there whole stays.
    """
    folded = dict(tensors)

    def take_norm(name: str, channels: int) -> tuple[Tensor, Tensor] | None:
        """Remove a BatchNorm, and return the scale and the shift that equal it."""
        keys = [f'{name}.{leaf}' for leaf in ('running_mean', 'running_var', 'weight', 'bias')]
        if any(key not in tensors or tensors[key].shape != (channels,) for key in keys):
            return None
        folded.pop(f'{name}.num_batches_tracked', None)
        mean, variance, weight, bias = (folded.pop(key) for key in keys)
        return batch_norm_affine(mean, variance, weight, bias, NORM_EPS)

    for key, tensor in tensors.items():
        name = key.removesuffix('.conv.weight')
        after = take_norm(f'{name}.bn', tensor.shape[0]) if name != key and tensor.ndim == 4 else None
        if after is None:
            continue
        weight, bias = fold_after(tensor, None, *after)
        before = take_norm(name.replace('ffn_block.ffn_fc1', 'prebn2'), tensor.shape[1])
        if before is not None:
            weight, bias = fold_before(weight, bias, *before)
        folded[key], folded[f'{name}.conv.bias'] = weight.to(tensor), bias.to(tensor)
    return folded


@register_model
class RepMLP(BaseBackbone):
    """RepMLPNet as a classifier's body or a multi-scale feature extractor.

    [RepMLPNet: Hierarchical Vision MLP with Re-parameterized Locality](https://arxiv.org/abs/2112.11081),
    [original code](https://github.com/DingXiaoH/RepMLP).

    Args:
        arch (str | dict): 't224', 'b224', 't256', 'b256', 'd256' or 'l256', or a dict with the keys ``channels``,
            ``depths``, ``share_sets`` (four of each) and ``img_size``. Defaults to 't224'.
        img_size (int | Sequence[int], optional): Side, or (height, width), of the area that a tile covers, in pixels,
            a multiple of 32. Images may have any size: they are tiled. Defaults to the arch's own.
        norm_cfg (Mapping): The normalization, 'BN' or 'SyncBN'. Defaults to ``dict(type='BN')``.
        **kwargs: Further arguments of ``BaseBackbone``. Its stages have strides 4, 8, 16 and 32, and a stage's map is
            that before the downsampling that follows; ``final_norm`` is a BatchNorm; the rate of stochastic depth,
            which the original does not have, rises from 0 to ``drop_path_rate`` over the depth; with ``deploy``,
            checkpoints of the original's deploy form are taken too, whose BatchNorms are folded as they are loaded.

    Shape:
        - Input: (N, in_channels, H, W), H and W from 32 pixels up, odd ones too.
        - Output: a tuple of maps (N, ``out_channels[i]``, ceil(H / ``out_strides[i]``), ceil(W / ``out_strides[i]``)).

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.
        CheckpointError: Weights of the other form, or for tiles of another size.

    Examples:
        >>> import torch
        >>> from mlp_backbones import RepMLP
        >>> [tuple(f.shape) for f in RepMLP('t224').eval()(torch.rand(1, 3, 224, 320))]
        [(1, 64, 56, 80), (1, 128, 28, 40), (1, 256, 14, 20), (1, 512, 7, 10)]
    """

    family = dialects.REPMLP
    training_mark = r'\.fc3_bn\.|\.repconv'
    deploy_mark = r'\.fc3\.bias$'
    input_layer = 'conv_embedding.conv'
    memory_format = torch.contiguous_format  # tiles are rows of positions: channels-last would be copied each time

    def __init__(
        self,
        arch: str | Mapping = 't224',
        img_size: int | Sequence[int] | None = None,
        norm_cfg: Mapping = dict(type='BN'),
        **kwargs: Any,
    ) -> None:
        settings = resolve_arch('RepMLP', arch, ARCHS, {})
        channels, depths, share_sets = (settings[k] for k in ('channels', 'depths', 'share_sets'))
        if any(c % s for c, s in zip(channels, share_sets)):
            raise InvalidValue(
                f"RepMLP: each number of share sets divides its stage's channels, got an arch with "
                f'share_sets={share_sets} and channels={channels}'
            )
        if min(channels) < REDUCTION:
            raise InvalidValue(f"RepMLP: arch['channels'] must be from {REDUCTION} up, got {channels}")
        if not is_foldable(build_norm(norm_cfg, channels[0])):
            raise InvalidValue(
                f"RepMLP: norm_cfg must be of type 'BN' or 'SyncBN', with running statistics, to be folded, "
                f'got {short_repr(norm_cfg)}'
            )
        super().__init__(channels, STRIDES, **kwargs)
        self.img_size = resolve_img_size('RepMLP', settings['img_size'] if img_size is None else img_size, STRIDES[-1])
        rates = iter(torch.linspace(0, self.drop_path_rate, sum(depths), device='cpu').tolist())
        self.conv_embedding = Downsample(self.in_channels, channels[0], STRIDES[0], norm_cfg, self.deploy)
        self.stages = nn.ModuleList()
        self.embeds = nn.ModuleList()
        for i in range(self.num_built):
            tile = (self.img_size[0] // STRIDES[i], self.img_size[1] // STRIDES[i])
            units = (
                RepMLPUnit(channels[i], tile, share_sets[i], norm_cfg, next(rates), self.deploy)
                for _ in range(depths[i])
            )
            self.stages.append(nn.Sequential(*units))
            if i + 1 < self.num_built:
                self.embeds.append(Downsample(channels[i], channels[i + 1], 2, norm_cfg, self.deploy))
        self._depths = depths
        self.head_norm = build_norm(norm_cfg, channels[3]) if self.final_norm else None
        self._finish()

    @property
    def size_step(self) -> tuple[int, int]:
        return self.img_size

    def stage_modules(self, index: int) -> list[nn.Module]:
        modules = [self.conv_embedding if index == 0 else self.embeds[index - 1], self.stages[index]]
        return modules + ([self.head_norm] if index == 3 and self.head_norm is not None else [])

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        tensors, notes = super().adapt(tensors)
        if self.deploy and any(key.endswith('.prebn2.running_mean') for key in tensors):
            tensors = fold_original_deploy(tensors)
            notes.append("the original's deploy form: its BatchNorms are folded into the convolutions")
        for name, own in self.named_parameters():
            theirs = tensors.get(name)
            if name.endswith('.fc3.weight') and theirs is not None and theirs.shape != own.shape:
                raise CheckpointError(
                    f'{name} is of shape {tuple(theirs.shape)} in the checkpoint and {tuple(own.shape)} in this RepMLP '
                    f'of img_size={self.img_size}: tiles of another size, or another arch (of {", ".join(ARCHS)})'
                )
        return tensors, notes

    def _depth_groups(self) -> list[list[str]]:
        groups = [['conv_embedding']]
        for index, depth in zip(range(self.num_built), self._depths):
            groups += [[f'stages.{index}.{i}'] for i in range(depth)]
            groups[-1].append(f'embeds.{index}')
        return groups
