"""ConvMLP: Hierarchical Convolutional MLPs for Vision (arXiv 2109.04454).

Original code: https://github.com/SHI-Labs/Convolutional-MLPs. Parameter names are those of its release, so its
checkpoints load as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints import dialects
from ...registry import register_model
from ...utils.errors import InvalidValue
from ..layers.activation_checkpointing import Recomputed
from ..layers.conv_norm import FoldableSequential, conv_norm
from ..layers.folding import absorb, without_affine
from ..layers.mlp import Mlp, build_drop_path
from .base import BaseBackbone, check_hidden, resolve_arch

# Table 2 of the paper; `channels` are the tokenizer's.
ARCHS = {
    'small': dict(channels=64, conv_blocks=2, dims=(128, 256, 512), depths=(2, 4, 2), mlp_ratios=(2.0, 2.0, 2.0)),
    'medium': dict(channels=64, conv_blocks=3, dims=(128, 256, 512), depths=(3, 6, 3), mlp_ratios=(3.0, 3.0, 3.0)),
    'large': dict(channels=96, conv_blocks=3, dims=(192, 384, 768), depths=(4, 8, 3), mlp_ratios=(3.0, 3.0, 3.0)),
}
ALIASES = {'s': 'small', 'm': 'medium', 'l': 'large'}


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, norm_cfg: Mapping, deploy: bool, stride: int = 1
) -> list[nn.Module]:
    padding = kernel // 2
    layers = conv_norm(in_channels, out_channels, kernel, norm_cfg, deploy, stride=stride, padding=padding)
    return [*layers, nn.ReLU(inplace=True)]


class ConvTokenizer(Recomputed):
    """Three 3x3 convolutions and a max pool: (N, in_channels, H, W) -> (N, channels, H/4, W/4), rounded up."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: Mapping, deploy: bool) -> None:
        super().__init__()
        self.block = FoldableSequential(
            *_conv_norm_relu(in_channels, channels // 2, 3, norm_cfg, deploy, stride=2),
            *_conv_norm_relu(channels // 2, channels // 2, 3, norm_cfg, deploy),
            *_conv_norm_relu(channels // 2, channels, 3, norm_cfg, deploy),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def _forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Bottleneck(Recomputed, FoldableSequential):
    """1x1, 3x3 and 1x1 convolution with a residual path: (N, C, H, W) -> (N, C, H, W).

    The last ReLU comes before the addition, as in the original code.
    """

    def __init__(self, channels: int, hidden: int, norm_cfg: Mapping, deploy: bool) -> None:
        super().__init__(
            *_conv_norm_relu(channels, hidden, 1, norm_cfg, deploy),
            *_conv_norm_relu(hidden, hidden, 3, norm_cfg, deploy),
            *_conv_norm_relu(hidden, channels, 1, norm_cfg, deploy),
        )

    def _forward(self, x: Tensor) -> Tensor:
        return x + FoldableSequential.forward(self, x)


class ConvStage(nn.Module):
    """Bottlenecks, then a downsampling convolution: (N, C, H, W) -> (N, dim, H/2, W/2), rounded up."""

    def __init__(self, channels: int, dim: int, num_blocks: int, norm_cfg: Mapping, deploy: bool) -> None:
        super().__init__()
        self.conv_blocks = nn.Sequential(*(Bottleneck(channels, dim, norm_cfg, deploy) for _ in range(num_blocks)))
        self.downsample = nn.Conv2d(channels, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.conv_blocks(x))


class ConvMLPBlock(Recomputed):
    """Channel MLP, 3x3 depthwise convolution, channel MLP, over a channels-last map (N, H, W, C).

    The depthwise convolution has neither a residual path nor a bias. It takes (N, C, H, W): both permutations are
    views, since a (N, H, W, C) tensor is a (N, C, H, W) one in the channels-last memory format.
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float, deploy: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=not deploy)
        self.channel_mlp1 = Mlp(dim, int(dim * mlp_ratio))
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=not deploy)
        self.connect = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.connect_norm = nn.LayerNorm(dim)
        self.channel_mlp2 = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = build_drop_path(drop_path_rate)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))

    def layers_to_fold(self) -> list[nn.Module]:
        first, second = self.channel_mlp1, self.channel_mlp2
        return [self.norm1, first, first.fc1, self.norm2, second, second.fc1]

    def switch_to_deploy(self) -> None:
        """Fold weight and bias of the LayerNorms into the linear layers.

        ``connect_norm`` keeps its own: the padding of the convolution after it is zero, whatever its bias is.
        """
        if self.norm1.weight is None:
            return
        absorb(self.channel_mlp1.fc1, before=(self.norm1.weight, self.norm1.bias))
        absorb(self.channel_mlp2.fc1, before=(self.norm2.weight, self.norm2.bias))
        self.norm1, self.norm2 = without_affine(self.norm1), without_affine(self.norm2)


class ConvDownsample(nn.Module):
    """3x3 convolution of stride 2: (N, C, H, W) -> (N, C', H/2, W/2), rounded up."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x)


class MLPStage(nn.Module):
    """ConvMLP blocks and, but for the last stage, a downsampling: (N, C, H, W) -> (N, C', H/2, W/2).

    The drop path rate rises from 0 to ``drop_path_rate`` within the stage.
    """

    def __init__(
        self, dim: int, out_dim: int | None, num_blocks: int, mlp_ratio: float, drop_path_rate: float, deploy: bool
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path_rate, num_blocks, device='cpu').tolist()
        self.blocks = nn.Sequential(*(ConvMLPBlock(dim, mlp_ratio, rate, deploy) for rate in rates))
        self.downsample_mlp = nn.Identity() if out_dim is None else ConvDownsample(dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.permute(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C), a view
        return self.downsample_mlp(x.permute(0, 3, 1, 2))


class MapNorm(nn.LayerNorm):
    """A LayerNorm over the channels of each position: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@register_model
class ConvMLP(BaseBackbone):
    """ConvMLP as a classifier's body or a multi-scale feature extractor.

    [ConvMLP: Hierarchical Convolutional MLPs for Vision](https://arxiv.org/abs/2109.04454),
    [original code](https://github.com/SHI-Labs/Convolutional-MLPs).

    Whatever the memory format of the input and of the weights, the image is brought into the channels-last format
    once; from there on convolutions and linear layers read the same memory, and no layout copy is made. The feature
    maps leave in the memory format of the image.

    Args:
        arch (str | dict): 'small', 'medium' or 'large' ('s', 'm', 'l'), or a dict with the keys ``channels`` (of the
            tokenizer, even), ``conv_blocks``, ``dims``, ``depths`` and ``mlp_ratios`` (three of each).
            Defaults to 'small'.
        drop_path_rate (float): Stochastic depth rate of the last block of each MLP stage. Defaults to 0.1.
        norm_cfg (Mapping): The normalization of the convolutions. Defaults to ``dict(type='BN')``.
        **kwargs: Further arguments of ``BaseBackbone``. Its stages are the tokenizer (0, stride 4), the convolution
            stage (1, stride 8), the first MLP stage with its downsampling (2, stride 16) and the other two (3,
            stride 32); ``final_norm`` is a LayerNorm.

    Shape:
        - Input: (N, in_channels, H, W), H and W from 32 pixels up, odd ones too.
        - Output: a tuple of maps (N, ``out_channels[i]``, ceil(H / ``out_strides[i]``), ceil(W / ``out_strides[i]``)).

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.

    Examples:
        >>> import torch
        >>> from mlp_backbones import ConvMLP
        >>> features = ConvMLP('small').eval()(torch.rand(1, 3, 224, 320))
        >>> [tuple(f.shape) for f in features]
        [(1, 64, 56, 80), (1, 128, 28, 40), (1, 256, 14, 20), (1, 512, 7, 10)]
    """

    family = dialects.CONVMLP
    training_mark = r'^tokenizer\.block\.1\.running_mean$|\.blocks\.\d+\.norm1\.weight$'
    deploy_mark = r'^tokenizer\.block\.0\.bias$'
    input_layer = 'tokenizer.block.0'
    memory_format = torch.channels_last

    def __init__(
        self,
        arch: str | Mapping = 'small',
        drop_path_rate: float = 0.1,
        norm_cfg: Mapping = dict(type='BN'),
        **kwargs: Any,
    ) -> None:
        settings = resolve_arch('ConvMLP', arch, ARCHS, ALIASES)
        channels, dims, depths, mlp_ratios = (settings[k] for k in ('channels', 'dims', 'depths', 'mlp_ratios'))
        if channels % 2:
            raise InvalidValue(f"ConvMLP: arch['channels'] must be even, got {channels}")
        check_hidden('ConvMLP', dims, mlp_ratios)
        super().__init__((channels, *dims), (4, 8, 16, 32), drop_path_rate=drop_path_rate, **kwargs)
        self.tokenizer = ConvTokenizer(self.in_channels, channels, norm_cfg, self.deploy)
        if self.num_built > 1:
            self.conv_stages = ConvStage(channels, dims[0], settings['conv_blocks'], norm_cfg, self.deploy)
        # Feature map 2 is that of MLP stage 0; feature map 3 takes both others.
        num_mlp_stages = {1: 0, 2: 0, 3: 1, 4: 3}[self.num_built]
        self.stages = nn.ModuleList(
            MLPStage(
                dims[i], dims[i + 1] if i < 2 else None, depths[i], mlp_ratios[i], self.drop_path_rate, self.deploy
            )
            for i in range(num_mlp_stages)
        )
        self.norm = MapNorm(dims[2]) if self.final_norm else None
        self._depths = depths
        self.apply(_init_module)
        # Weights as the maps are, or each call would turn them round.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._finish()

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == 0:
            return [self.tokenizer]
        if index == 1:
            return [self.conv_stages]
        if index == 2:
            return [self.stages[0]]
        return [self.stages[1], self.stages[2]] + ([] if self.norm is None else [self.norm])

    def _depth_groups(self) -> list[list[str]]:
        groups = [['tokenizer']]
        if self.num_built > 1:
            groups += [[f'conv_stages.conv_blocks.{i}'] for i in range(len(self.conv_stages.conv_blocks))]
            groups[-1].append('conv_stages.downsample')
        for index, depth in zip(range(len(self.stages)), self._depths):
            groups += [[f'stages.{index}.blocks.{i}'] for i in range(depth)]
            groups[-1].append(f'stages.{index}.downsample_mlp')
        return groups


def _init_module(module: nn.Module) -> None:
    """Initialize a layer as the original does; norms already start at 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
