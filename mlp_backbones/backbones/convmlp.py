"""ConvMLP: Hierarchical Convolutional MLPs for Vision (arXiv 2109.04454).

Original code: https://github.com/SHI-Labs/Convolutional-MLPs. Parameter names are those of its release, so its
checkpoints load as they are.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Optional, Union

import torch
from torch import Tensor, nn

from ..checks import check_flags
from ..layers import Mlp, build_norm, drop_path, fold_before, fold_norms, take_affine
from ..registry import register_model
from .base import BaseBackbone, check_hidden, resolve_arch

# Table 2 of the paper; `channels` are the tokenizer's.
ARCHS = {
    'small': dict(channels=64, conv_blocks=2, dims=(128, 256, 512), depths=(2, 4, 2), mlp_ratios=(2.0, 2.0, 2.0)),
    'medium': dict(channels=64, conv_blocks=3, dims=(128, 256, 512), depths=(3, 6, 3), mlp_ratios=(3.0, 3.0, 3.0)),
    'large': dict(channels=96, conv_blocks=3, dims=(192, 384, 768), depths=(4, 8, 3), mlp_ratios=(3.0, 3.0, 3.0)),
}
ALIASES = {'s': 'small', 'm': 'medium', 'l': 'large'}


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, stride: int, norm_cfg: Mapping
) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return [conv, build_norm(norm_cfg, out_channels), nn.ReLU(inplace=True)]


class ConvTokenizer(nn.Module):
    """Three 3x3 convolutions and a max pool: (N, in_channels, H, W) -> (N, channels, H/4, W/4), rounded up."""

    def __init__(self, in_channels: int, channels: int, norm_cfg: Mapping) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *_conv_norm_relu(in_channels, channels // 2, 3, 2, norm_cfg),
            *_conv_norm_relu(channels // 2, channels // 2, 3, 1, norm_cfg),
            *_conv_norm_relu(channels // 2, channels, 3, 1, norm_cfg),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)

    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into its convolution."""
        fold_norms(self.block)


class ConvStage(nn.Module):
    """Residual bottlenecks, then a downsampling convolution: (N, C, H, W) -> (N, dim, H/2, W/2), rounded up.

    The last ReLU of a bottleneck comes before the addition, as in the original code.
    """

    def __init__(self, channels: int, dim: int, num_blocks: int, norm_cfg: Mapping) -> None:
        super().__init__()
        self.conv_blocks = nn.ModuleList(
            nn.Sequential(
                *_conv_norm_relu(channels, dim, 1, 1, norm_cfg),
                *_conv_norm_relu(dim, dim, 3, 1, norm_cfg),
                *_conv_norm_relu(dim, channels, 1, 1, norm_cfg),
            )
            for _ in range(num_blocks)
        )
        self.downsample = nn.Conv2d(channels, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        for block in self.conv_blocks:
            x = x + run(block, x)
        return self.downsample(x)

    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into its convolution."""
        for block in self.conv_blocks:
            fold_norms(block)


class ConvMLPBlock(nn.Module):
    """Channel MLP, 3x3 depthwise convolution, channel MLP, over a channels-last map (N, H, W, C).

    The depthwise convolution has neither a residual path nor a bias. It takes (N, C, H, W): both permutations are
    views, since a (N, H, W, C) tensor is a (N, C, H, W) one in the channels-last memory format.
    """

    def __init__(self, dim: int, mlp_ratio: float, drop_path_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.channel_mlp1 = Mlp(dim, int(dim * mlp_ratio))
        self.norm2 = nn.LayerNorm(dim)
        self.connect = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.connect_norm = nn.LayerNorm(dim)
        self.channel_mlp2 = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))

    def switch_to_deploy(self) -> None:
        """Fold weight and bias of the LayerNorms into the linear layers.

        ``connect_norm`` keeps its own: the padding of the convolution after it is zero, whatever its bias is.
        """
        if self.norm1.weight is None:
            return
        fold_before(self.channel_mlp1.fc1, *take_affine(self.norm1))
        fold_before(self.channel_mlp2.fc1, *take_affine(self.norm2))


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
        self, dim: int, out_dim: Optional[int], num_blocks: int, mlp_ratio: float, drop_path_rate: float
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path_rate, num_blocks, device='cpu').tolist()
        self.blocks = nn.ModuleList(ConvMLPBlock(dim, mlp_ratio, rate) for rate in rates)
        self.downsample_mlp = nn.Identity() if out_dim is None else ConvDownsample(dim, out_dim)

    def forward(self, x: Tensor, run: Callable[[nn.Module, Tensor], Tensor]) -> Tensor:
        x = x.permute(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C), a view
        for block in self.blocks:
            x = run(block, x)
        return self.downsample_mlp(x.permute(0, 3, 1, 2))


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
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (int | Sequence[int]): Which of the four feature maps to return: tokenizer (0, stride 4),
            convolution stage (1, stride 8), first MLP stage after its downsampling (2, stride 16), last MLP stage
            (3, stride 32). Negative ones count from the end. Defaults to (0, 1, 2, 3).
        frozen_stages (int): The parts up to and including the one that emits this feature map are frozen.
            Defaults to -1, nothing.
        norm_eval (bool): Keep BatchNorm in eval mode while training. Defaults to False.
        final_norm (bool): Apply the classifier's LayerNorm to the last feature map; classification needs it,
            dense prediction goes without. Defaults to False.
        drop_path_rate (float): Stochastic depth rate of the last block of each MLP stage. Defaults to 0.1.
        norm_cfg (Mapping): The normalisation of the convolutions. Defaults to ``dict(type='BN')``.
        with_cp (bool): Recompute block activations in the backward pass to save memory. Defaults to False.
        deploy (bool): Build the folded form, for inference: it takes folded checkpoints, see ``switch_to_deploy``.
            Defaults to False.
        init_cfg (dict | list[dict], optional): mmengine's initialisation config.

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

    training_mark = r'^tokenizer\.block\.1\.running_mean$|\.blocks\.\d+\.norm1\.weight$'
    deploy_mark = r'^tokenizer\.block\.0\.bias$|\.blocks\.\d+\.channel_mlp1\.fc1\.weight$'

    def __init__(
        self,
        arch: Union[str, Mapping] = 'small',
        in_channels: int = 3,
        out_indices: Union[int, Sequence[int]] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        final_norm: bool = False,
        drop_path_rate: float = 0.1,
        norm_cfg: Mapping = dict(type='BN'),
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        settings = resolve_arch('ConvMLP', arch, ARCHS, ALIASES)
        channels, dims, depths, mlp_ratios = (settings[k] for k in ('channels', 'dims', 'depths', 'mlp_ratios'))
        if channels % 2:
            raise ValueError(f"ConvMLP: arch['channels'] must be even, got {channels}")
        check_hidden('ConvMLP', dims, mlp_ratios)
        check_flags('ConvMLP', final_norm=final_norm, deploy=deploy)
        super().__init__(
            channels=(channels, *dims),
            strides=(4, 8, 16, 32),
            in_channels=in_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        if final_norm and self.num_built < 4:
            raise ValueError(f'ConvMLP: final_norm belongs to stage 3, which out_indices={out_indices!r} leaves out')
        self.tokenizer = ConvTokenizer(in_channels, channels, norm_cfg)
        if self.num_built > 1:
            self.conv_stages = ConvStage(channels, dims[0], settings['conv_blocks'], norm_cfg)
        # Feature map 2 is that of MLP stage 0; feature map 3 takes both others.
        num_mlp_stages = {1: 0, 2: 0, 3: 1, 4: 3}[self.num_built]
        self.stages = nn.ModuleList(
            MLPStage(dims[i], dims[i + 1] if i < 2 else None, depths[i], mlp_ratios[i], drop_path_rate)
            for i in range(num_mlp_stages)
        )
        self.norm = nn.LayerNorm(dims[2]) if final_norm else None
        self._depths = (settings['conv_blocks'], *depths)
        self.apply(_init_module)
        self.to(memory_format=torch.channels_last)  # weights as the maps are, or each call would turn them round
        self._finish(deploy)

    def stage_modules(self, index: int) -> list[nn.Module]:
        if index == 0:
            return [self.tokenizer]
        if index == 1:
            return [self.conv_stages]
        if index == 2:
            return [self.stages[0]]
        return [self.stages[1], self.stages[2]] + ([] if self.norm is None else [self.norm])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_input(x)
        image, x = x, x.contiguous(memory_format=torch.channels_last)
        outs = []
        for index in range(self.num_built):
            if index == 0:
                x = self._run(self.tokenizer, x)
            elif index == 1:
                x = self.conv_stages(x, self._run)
            elif index == 2:
                x = self.stages[0](x, self._run)
            else:
                x = self.stages[2](self.stages[1](x, self._run), self._run)
                if self.norm is not None:
                    x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            if index in self.out_indices:
                outs.append(self._emit(x, image))
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """The depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): The backbone's prefix there, such as 'backbone.'.

        Returns:
            tuple[int, int]: The depth (0: tokenizer, then one for each block; a downsampling counts with the block
            before it; the final norm and what follows the backbone come last) and the number of depths.
        """
        num_layers = 1 + sum(self._depths) + 1
        parts = param_name[len(prefix) :].split('.') if param_name.startswith(prefix) else ['']
        if parts[0] == 'tokenizer':
            return 0, num_layers
        if parts[0] == 'conv_stages':
            stage, block = 0, int(parts[2]) if parts[1] == 'conv_blocks' else self._depths[0] - 1
        elif parts[0] == 'stages':
            stage = int(parts[1]) + 1
            block = int(parts[3]) if parts[2] == 'blocks' else self._depths[stage] - 1
        else:
            return num_layers - 1, num_layers
        return 1 + sum(self._depths[:stage]) + block, num_layers


def _init_module(module: nn.Module) -> None:
    """The original's initialisation; norms already start at 1 and 0."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
