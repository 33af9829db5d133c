"""RepMLP's block (arXiv 2105.01883, 2112.11081): a linear layer over tiles, with the convolutions folded into it.

Original code: https://github.com/DingXiaoH/RepMLP.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv_norm import ConvNorm
from .folding import affine_of, fold_after, new_parameter
from .norm import build_norm
from .windows import crop, pad_to_multiple

REDUCTION = 4  # of the channels within the global perceptron


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
        bias (bool): Whether there is a bias; the training form leaves it to the norm.
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
        x = torch.bmm(x.transpose(0, 1), weight)  # (B, S, L) -> (S, B, L), a view
        if self.bias is not None:
            x = x + self.bias.view(self.share_sets, 1, length)
        return x.transpose(0, 1)


class SharedDepthwiseConv(nn.Conv2d):
    """A depthwise convolution whose S filters are shared: channel c is filtered by c mod S, (B, C, h, w), any C.

    The original reshapes the map to (B * C / S, S, h, w) for it. With few sets that is up to 15 times slower on a CPU,
    whose kernels work on many channels at once.
    """

    def forward(self, x: Tensor) -> Tensor:
        repeats = x.shape[1] // self.out_channels
        bias = None if self.bias is None else self.bias.repeat(repeats)
        return F.conv2d(x, self.weight.repeat(repeats, 1, 1, 1), bias, padding=self.padding, groups=x.shape[1])


class RepMLPBlock(nn.Module):
    """Global, channel and local perceptron: (N, C, H, W) -> (N, C, H, W), any H and W.

    The map is padded with zeros to whole tiles of h x w positions, which share one linear layer for each of S sets of
    channels. What the padding holds goes no further than the linear layer and the convolutions of its own tile: the
    gate's mean and every BatchNorm see the cropped map.

    Args:
        channels (int): C, a multiple of ``share_sets``.
        tile (tuple[int, int]): h and w.
        share_sets (int): S.
        norm_cfg (Mapping): The normalization.
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
            depthwise: dict[str, Any] = dict(layer=SharedDepthwiseConv, groups=share_sets)
            self.repconv1 = ConvNorm(share_sets, share_sets, 1, norm_cfg, deploy, **depthwise)
            self.repconv3 = ConvNorm(share_sets, share_sets, 3, norm_cfg, deploy, **depthwise, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        h, w = self.tile
        tiles = pad_to_multiple(x, self.tile)
        rows, columns = tiles.shape[2] // h, tiles.shape[3] // w
        # (N, C, H, W) -> (N, rows, columns, C, h, w) -> (N * tiles, C, h, w)
        tiles = tiles.reshape(n, channels, rows, h, columns, w).permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, h, w)

        def to_map(y: Tensor) -> Tensor:
            """(N * tiles, C, h, w) -> (N * C / S, S, H, W), without the padding: channel c is of set c mod S."""
            y = y.reshape(n, rows, columns, channels, h, w).permute(0, 3, 1, 4, 2, 5)
            y = crop(y.reshape(n, channels, rows * h, columns * w), height, width)
            return y.reshape(-1, self.share_sets, height, width)

        y = to_map(self.fc3(tiles.reshape(-1, self.share_sets, h * w)))
        if not self.deploy:
            y = self.fc3_bn(y)
            y = y + self.repconv1.bn(to_map(self.repconv1.conv(tiles)))
            y = y + self.repconv3.bn(to_map(self.repconv3.conv(tiles)))
        return y.reshape(x.shape) * self.gp(x)

    def layers_to_fold(self) -> list[nn.Module]:
        if self.deploy:
            return []
        branches = [layer for branch in (self.repconv1, self.repconv3) for layer in (branch, branch.conv, branch.bn)]
        return [self.fc3, self.fc3_bn, *branches]

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Replace the three branches by the linear layer that equals them; a folded block stays as it is."""
        if self.deploy:
            return
        length = self.tile[0] * self.tile[1]
        scale, shift = affine_of(self.fc3_bn)
        weight, bias = fold_after(
            self.fc3.weight, None, scale.repeat_interleave(length), shift.repeat_interleave(length)
        )
        for branch in (self.repconv1, self.repconv3):
            filters, offset = branch.folded()
            weight = weight + convolution_as_linear(filters, self.tile)
            bias = bias + offset.repeat_interleave(length)
        self.fc3.weight.copy_(weight)
        self.fc3.bias = new_parameter(bias, self.fc3.weight)
        del self.fc3_bn, self.repconv1, self.repconv3
        self.deploy = True


def convolution_as_linear(filters: Tensor, tile: tuple[int, int]) -> Tensor:
    """Return the weight (S * L, L, 1, 1) of the linear layer over a tile that equals a depthwise convolution over it.

    'Locality injection' of the paper, for tiles of any h and w: a convolution is linear, so its output for each unit
    map is a column of the matrix that does the same. Computed in float64.

    Args:
        filters (Tensor): (S, 1, k, k), k odd; the tile is padded with zeros.
        tile (tuple[int, int]): h and w; L is their product.
    """
    h, w = tile
    units = torch.eye(h * w, dtype=torch.float64, device=filters.device).view(h * w, 1, h, w)
    outputs = F.conv2d(units, filters.double(), padding=filters.shape[-1] // 2)  # (unit map, S, h, w)
    return outputs.permute(1, 2, 3, 0).reshape(-1, h * w, 1, 1)
