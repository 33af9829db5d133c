"""Maps cut into windows, and a convolution that connects them."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .activation_checkpointing import Recomputed


def to_windows(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Cut a map into windows: (N, H, W, C), H and W multiples of the grid -> (N * windows, L, C)."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // grid[0], grid[0], width // grid[1], grid[1], channels)
    return x.transpose(2, 3).reshape(-1, grid[0] * grid[1], channels)


def from_windows(x: Tensor, grid: Sequence[int], size: Sequence[int]) -> Tensor:
    """Put windows together again: (N * windows, L, C) -> (N, H, W, C), ``size`` being (H, W)."""
    rows, columns = size[0] // grid[0], size[1] // grid[1]
    x = x.reshape(-1, rows, columns, grid[0], grid[1], x.shape[-1])
    return x.transpose(2, 3).reshape(-1, *size, x.shape[-1])


def pad_to_multiple(x: Tensor, step: Sequence[int]) -> Tensor:
    """Pad a map or an image with zeros at the bottom and the right: (N, C, H, W), to multiples of ``step``."""
    height, width = x.shape[2:]
    # Whole steps, so that ``torch.export`` knows that the sizes are multiples.
    rows, columns = ((side + n - 1) // n for side, n in zip((height, width), step))
    if (rows * step[0], columns * step[1]) == (height, width):
        return x
    return F.pad(x, (0, columns * step[1] - width, 0, rows * step[0] - height))


def crop(x: Tensor, height: int, width: int, channels_last: bool = False) -> Tensor:
    """Cut a map at the bottom and the right: (N, C, H, W), or (N, H, W, C), to ``height`` and ``width``."""
    size = x.shape[1:3] if channels_last else x.shape[2:]
    if size == (height, width):
        return x
    # A negative padding: ``torch.export`` loses the size of a slice.
    return F.pad(x, (*((0, 0) if channels_last else ()), 0, width - size[1], 0, height - size[0]))


class WindowPropagation(Recomputed):
    """What windows tell each other: a depthwise convolution over the whole map, added to it.

    It starts at zero, so that a pretrained model is unchanged at first: (N, H, W, C) -> (N, H, W, C).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def _forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
