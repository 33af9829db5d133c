"""RepMLPNet: Hierarchical Vision MLP with Re-parameterized Locality (arXiv 2112.11081; RepMLP: 2105.01883).

Original code: https://github.com/DingXiaoH/RepMLP. Parameter names are those of its release, so its checkpoints, in
training and in deploy form, load as they are.
"""

from collections.abc import Mapping, Sequence
from typing import Optional, Union, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints import CheckpointError
from ..checks import check_flags, said
from ..layers import affine_of, build_norm, drop_path, fold_before, fold_norms
from ..registry import register_model
from .base import Adapted, BaseBackbone, resolve_arch, resolve_img_size

# `img_size` is what the tiles of every stage cover: their sides are img_size / 4, / 8, / 16 and / 32 positions.
ARCHS = {
    't224': dict(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), share_sets=(1, 4, 16, 128), img_size=224),
    'b224': dict(channels=(96, 192, 384, 768), depths=(2, 2, 12, 2), share_sets=(1, 4, 32, 128), img_size=224),
    't256': dict(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), share_sets=(1, 4, 16, 128), img_size=256),
    'b256': dict(channels=(96, 192, 384, 768), depths=(2, 2, 12, 2), share_sets=(1, 4, 32, 128), img_size=256),
    'd256': dict(channels=(80, 160, 320, 640), depths=(2, 2, 18, 2), share_sets=(1, 4, 16, 128), img_size=256),
    'l256': dict(channels=(96, 192, 384, 768), depths=(2, 2, 18, 2), share_sets=(1, 4, 32, 256), img_size=256),
}
KERNELS = (1, 3)  # of the local perceptron
REDUCTION = 4  # of the channels within the global perceptron
STRIDES = (4, 8, 16, 32)


class ConvNorm(nn.Sequential):
    """A convolution without bias and its normalisation, and a ReLU if asked for."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, norm_cfg: Mapping, relu=False, **conv) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, bias=False, **conv)
        self.bn = build_norm(norm_cfg, out_channels)
        if relu:
            self.relu = nn.ReLU(inplace=True)


class Downsample(ConvNorm):
    """A convolution over patches that do not overlap; a side that is no multiple is padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm_cfg: Mapping) -> None:
        super().__init__(in_channels, out_channels, stride, norm_cfg, relu=True, stride=stride)

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorm into the convolution."""
        fold_norms(self)

    def forward(self, x: Tensor) -> Tensor:
        stride = self.conv.stride[0]
        bottom, right = -x.shape[2] % stride, -x.shape[3] % stride
        return super().forward(F.pad(x, (0, right, 0, bottom)) if bottom or right else x)


class GlobalPerceptron(nn.Module):
    """A gate for each channel, from the mean over the whole map: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class TileLinear(nn.Module):
    """A linear layer over the positions of a tile, one for each share set: (B, S, L) -> (B, S, L).

    The original writes it as a grouped 1x1 convolution over a 1x1 map, whose weight shape is kept; as a batch of
    matrix products it is the same sum, and about twice as fast on a CPU.

    Args:
        share_sets (int): S.
        length (int): L, positions of a tile.
        bias (bool): Whether there is a bias; the training form leaves it to the normalisation.
    """

    def __init__(self, share_sets: int, length: int, bias: bool) -> None:
        super().__init__()
        self.share_sets = share_sets
        self.weight = nn.Parameter(torch.empty(share_sets * length, length, 1, 1))
        self.bias = nn.Parameter(torch.zeros(share_sets * length)) if bias else None
        nn.init.uniform_(self.weight, -(length**-0.5), length**-0.5)  # as a convolution of this shape

    def forward(self, x: Tensor) -> Tensor:
        length = self.weight.shape[1]
        weight = self.weight.view(self.share_sets, length, length).transpose(1, 2)
        x = x.transpose(0, 1)  # (B, S, L) -> (S, B, L), a view
        x = torch.bmm(x, weight)
        if self.bias is not None:
            x = x + self.bias.view(self.share_sets, 1, length)
        return x.transpose(0, 1)


class RepMLPBlock(nn.Module):
    """Global, channel and local perceptron: (N, C, H, W) -> (N, C, H, W), any H and W.

    The map is padded with zeros to whole tiles of h x w positions, which share one linear layer for each of S sets of
    channels. What the padding holds goes no further than the linear layer and the convolutions of its own tile: the
    gate's mean and every BatchNorm see the cropped map.

    Args:
        channels (int): C, a multiple of ``share_sets``.
        tile (tuple[int, int]): h and w.
        share_sets (int): S.
        norm_cfg (Mapping): The normalisation.
        deploy (bool): The folded form, without a local perceptron.
    """

    def __init__(
        self, channels: int, tile: tuple[int, int], share_sets: int, norm_cfg: Mapping, deploy: bool = False
    ) -> None:
        super().__init__()
        self.tile, self.share_sets, self.deploy = tile, share_sets, deploy
        self.gp = GlobalPerceptron(channels)
        self.fc3 = TileLinear(share_sets, tile[0] * tile[1], bias=deploy)
        if not deploy:
            self.fc3_bn = build_norm(norm_cfg, share_sets)
            for kernel in KERNELS:
                conv = ConvNorm(share_sets, share_sets, kernel, norm_cfg, padding=kernel // 2, groups=share_sets)
                self.add_module(f'repconv{kernel}', conv)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gp(x)
        n, channels, height, width = x.shape
        h, w = self.tile
        bottom, right = -height % h, -width % w
        tiles = F.pad(x, (0, right, 0, bottom)) if bottom or right else x
        rows, columns = tiles.shape[2] // h, tiles.shape[3] // w
        # (N, C, H, W) -> (N, rows, columns, C, h, w) -> (B, S, h, w)
        tiles = tiles.reshape(n, channels, rows, h, columns, w).permute(0, 2, 4, 1, 3, 5)
        tiles = tiles.reshape(-1, self.share_sets, h, w)

        def to_map(y: Tensor) -> Tensor:
            """(B, S, h, w) -> (N * C / S, S, H, W), without the padding: channel c is of set c mod S."""
            y = y.reshape(n, rows, columns, channels, h, w).permute(0, 3, 1, 4, 2, 5)
            y = y.reshape(n, channels, rows * h, columns * w)[:, :, :height, :width]
            return y.reshape(-1, self.share_sets, height, width)

        y = to_map(self.fc3(tiles.flatten(2)))
        if not self.deploy:
            y = self.fc3_bn(y)
            for branch in self._branches():
                y = y + branch.bn(to_map(branch.conv(tiles)))
        return y.reshape(x.shape) * gate

    def _branches(self) -> list[ConvNorm]:
        return [cast(ConvNorm, self.get_submodule(f'repconv{kernel}')) for kernel in KERNELS]

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """Weight (S * L, L, 1, 1) and bias (S * L) of the one linear layer that equals the three branches.

        'Locality injection' of the paper, for tiles of any h and w: a convolution is linear, so its answer to each
        unit map is a column of the matrix that does the same. Computed in float64.
        """
        h, w = self.tile
        length = h * w
        scale, bias = affine_of(self.fc3_bn)
        weight = self.fc3.weight.double() * scale.repeat_interleave(length).view(-1, 1, 1, 1)
        units = torch.eye(length, dtype=torch.float64, device=weight.device).view(length, 1, h, w)
        for kernel, branch in zip(KERNELS, self._branches()):
            branch_scale, branch_bias = affine_of(branch.bn)
            filters = branch.conv.weight.double() * branch_scale.view(-1, 1, 1, 1)
            answers = F.conv2d(units, filters, padding=kernel // 2)  # (unit map, S, h, w)
            weight += answers.permute(1, 2, 3, 0).reshape(weight.shape)
            bias = bias + branch_bias
            if branch.conv.bias is not None:  # of a branch whose BatchNorm was folded by others
                bias = bias + branch_scale * branch.conv.bias.double()
        return weight.to(self.fc3.weight), bias.repeat_interleave(length).to(self.fc3.weight)

    def switch_to_deploy(self) -> None:
        """Replace the three branches by the linear layer that equals them; a folded block stays as it is."""
        if self.deploy:
            return
        weight, bias = self.fold()
        fc3 = TileLinear(self.share_sets, self.tile[0] * self.tile[1], bias=True).to(weight)
        fc3.load_state_dict(dict(weight=weight, bias=bias))
        fc3.requires_grad_(self.fc3.weight.requires_grad)
        self.fc3 = fc3
        for name in ('fc3_bn', *(f'repconv{kernel}' for kernel in KERNELS)):
            delattr(self, name)
        self.deploy = True


class FFNBlock(nn.Module):
    """Two 1x1 convolutions with BatchNorm, a GELU between them: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, hidden: int, norm_cfg: Mapping) -> None:
        super().__init__()
        self.ffn_fc1 = ConvNorm(channels, hidden, 1, norm_cfg)
        self.ffn_fc2 = ConvNorm(hidden, channels, 1, norm_cfg)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn_fc2(self.act(self.ffn_fc1(x)))

    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into its convolution."""
        fold_norms(self.ffn_fc1)
        fold_norms(self.ffn_fc2)


class RepMLPUnit(nn.Module):
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
        self.ffn_block = FFNBlock(channels, channels * 4, norm_cfg)
        self.prebn1 = build_norm(norm_cfg, channels)
        self.prebn2 = build_norm(norm_cfg, channels)
        self.drop_path = drop_path(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.repmlp_block(self.prebn1(x)))
        return x + self.drop_path(self.ffn_block(self.prebn2(x)))

    def switch_to_deploy(self) -> None:
        """Fold the BatchNorm before the FFN into it; block and FFN fold themselves.

        The other one stays: the share sets' weights are common to channels that it treats differently.
        """
        if not isinstance(self.prebn2, nn.Identity):
            fold_before(self.ffn_block.ffn_fc1.conv, *affine_of(self.prebn2))
            self.prebn2 = nn.Identity()


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
        deploy (bool): Build the original's deploy form, for inference: without local perceptrons. It takes checkpoints
            of that form, and those of ``switch_to_deploy``, which folds BatchNorms too. Defaults to False.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (int | Sequence[int]): Which of the four stages' maps to return, at strides 4, 8, 16 and 32, each
            before the downsampling that follows it. Negative ones count from the end. Defaults to (0, 1, 2, 3).
        frozen_stages (int): The parts up to and including this stage are frozen. Defaults to -1, nothing.
        norm_eval (bool): Keep BatchNorm in eval mode while training. Defaults to False.
        final_norm (bool): Apply the classifier's BatchNorm to the last map; classification needs it, dense prediction
            goes without. Defaults to False.
        drop_path_rate (float): Stochastic depth rate of the last unit; it rises from 0 over the depth. The original
            has none. Defaults to 0.
        norm_cfg (Mapping): The normalisation, 'BN' or 'SyncBN'. Defaults to ``dict(type='BN')``.
        with_cp (bool): Recompute unit activations in the backward pass to save memory. Defaults to False.
        init_cfg (dict | list[dict], optional): mmengine's initialisation config.

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

    training_mark = r'\.fc3_bn\.|\.repconv'
    deploy_mark = r'\.fc3\.bias$'

    def __init__(
        self,
        arch: Union[str, Mapping] = 't224',
        img_size: Optional[Union[int, Sequence[int]]] = None,
        deploy: bool = False,
        in_channels: int = 3,
        out_indices: Union[int, Sequence[int]] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        norm_cfg: Mapping = dict(type='BN'),
        with_cp: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        settings = resolve_arch('RepMLP', arch, ARCHS, {})
        channels, depths, share_sets = (settings[k] for k in ('channels', 'depths', 'share_sets'))
        if any(c % s for c, s in zip(channels, share_sets)):
            raise ValueError(
                f"RepMLP: each number of share sets divides its stage's channels, got an arch with "
                f'share_sets={share_sets} and channels={channels}'
            )
        if min(channels) < REDUCTION:
            raise ValueError(f"RepMLP: arch['channels'] must be from {REDUCTION} up, got {channels}")
        if (
            not isinstance(norm_cfg, Mapping)
            or norm_cfg.get('type') == 'GN'
            or not norm_cfg.get('track_running_stats', True)
        ):
            raise ValueError(
                f"RepMLP: norm_cfg must be of type 'BN' or 'SyncBN', with running statistics, to be folded, "
                f'got {said(norm_cfg)}'
            )
        check_flags('RepMLP', final_norm=final_norm, deploy=deploy)
        super().__init__(
            channels=channels,
            strides=STRIDES,
            in_channels=in_channels,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            drop_path_rate=drop_path_rate,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
        if final_norm and self.num_built < 4:
            raise ValueError(f'RepMLP: final_norm belongs to stage 3, which out_indices={out_indices!r} leaves out')
        self.img_size = resolve_img_size('RepMLP', settings['img_size'] if img_size is None else img_size, STRIDES[-1])
        self.deploy = deploy
        self._depths = depths
        rates = torch.linspace(0, drop_path_rate, sum(depths), device='cpu').tolist()
        self.conv_embedding = Downsample(in_channels, channels[0], STRIDES[0], norm_cfg)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                RepMLPUnit(
                    channels[i],
                    (self.img_size[0] // STRIDES[i], self.img_size[1] // STRIDES[i]),
                    share_sets[i],
                    norm_cfg,
                    rates[sum(depths[:i]) + j],
                    deploy,
                )
                for j in range(depths[i])
            )
            for i in range(self.num_built)
        )
        self.embeds = nn.ModuleList(
            Downsample(channels[i], channels[i + 1], 2, norm_cfg) for i in range(self.num_built - 1)
        )
        self.head_norm = build_norm(norm_cfg, channels[3]) if final_norm else None
        self._finish(False)

    @property
    def size_step(self) -> tuple[int, int]:
        return self.img_size

    def stage_modules(self, index: int) -> list[nn.Module]:
        modules = [self.conv_embedding if index == 0 else self.embeds[index - 1], *self.stages[index].children()]
        return modules + ([self.head_norm] if index == 3 and self.head_norm is not None else [])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_input(x)
        # Tiles are rows of positions: this family wants the contiguous format inside.
        image, x = x, x.contiguous()
        outs = []
        for index in range(self.num_built):
            for module in self.stage_modules(index):
                x = self._run(module, x)
            if index in self.out_indices:
                outs.append(self._emit(x, image))
        return tuple(outs)

    @property
    def _is_folded(self) -> bool:
        """Whether the BatchNorms are folded too, which the original's deploy form keeps."""
        return isinstance(self.conv_embedding.bn, nn.Identity)

    def adapt(self, tensors: Mapping[str, Tensor]) -> Adapted:
        adapted = super().adapt(tensors)
        tensors = adapted.tensors
        if self.deploy and tensors:
            convolutions = [n for n, m in self.named_modules() if isinstance(m, ConvNorm)]
            folded = all(f'{name}.conv.bias' in tensors for name in convolutions)
            if folded and not self._is_folded:
                self._fold()  # changes nothing that the backbone computes
            if self._is_folded and not folded:
                raise CheckpointError(
                    "the checkpoint is of RepMLP in the original's deploy form, this backbone has its BatchNorms "
                    'folded too: build it anew with deploy=True, load the checkpoint, and call switch_to_deploy() in '
                    'eval mode'
                )
        for name, own in self.named_parameters():
            theirs = tensors.get(name)
            if name.endswith('.fc3.weight') and theirs is not None and theirs.shape != own.shape:
                raise CheckpointError(
                    f'{name} is of shape {tuple(theirs.shape)} in the checkpoint and {tuple(own.shape)} in this RepMLP '
                    f'of img_size={self.img_size}: tiles of another size, or another arch (of {", ".join(ARCHS)})'
                )
        return adapted

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """The depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): The backbone's prefix there, such as 'backbone.'.

        Returns:
            tuple[int, int]: The depth (0: the embedding, then one for each unit; a downsampling counts with the unit
            before it; the final norm and what follows the backbone come last) and the number of depths.
        """
        num_layers = sum(self._depths) + 2
        parts = param_name[len(prefix) :].split('.') if param_name.startswith(prefix) else ['']
        if parts[0] == 'conv_embedding':
            return 0, num_layers
        if parts[0] == 'stages':
            return 1 + sum(self._depths[: int(parts[1])]) + int(parts[2]), num_layers
        if parts[0] == 'embeds':
            return sum(self._depths[: int(parts[1]) + 1]), num_layers
        return num_layers - 1, num_layers
