"""A linear layer over the tokens of a grid, and its weights for another grid."""

import torch
from torch import Tensor, nn

from .folding import fold_token_mixing, new_parameter


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that a matrix product with ``x`` is computed in."""
    kind = x.device.type
    if kind not in ('cpu', 'cuda'):
        return x.dtype
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4 and later
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if kind == 'cuda':
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else x.dtype
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else x.dtype


class TokenMixing(nn.Module):
    """A linear layer over the tokens of a grid, the same for every channel: (B, L, C) -> (B, L, C).

    Args:
        grid (tuple[int, int]): Rows and columns; L is their product.
        channels (int, optional): C of the folded form, which has a scale (C,), and a shift (L, C) in place of its bias.
    """

    bias: nn.Parameter
    scale: nn.Parameter
    shift: nn.Parameter

    def __init__(self, grid: tuple[int, int], channels: int | None = None) -> None:
        super().__init__()
        length = grid[0] * grid[1]
        self.grid = grid
        self.weight = nn.Parameter(torch.empty(length, length))
        self.register_parameter('bias', nn.Parameter(torch.zeros(length)) if channels is None else None)
        self.register_parameter('scale', None if channels is None else nn.Parameter(torch.ones(channels)))
        self.register_parameter('shift', None if channels is None else nn.Parameter(torch.zeros(length, channels)))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Mix the tokens of ``x``, (N, L, C), and add a residual of the same shape."""
        # The channels stay the last dimension: a product from the left instead of two transpositions.
        # Cast before it is expanded: autocast would copy it for every sample.
        y = torch.bmm(self.weight.to(_product_dtype(x)).expand(x.shape[0], -1, -1), x)
        if self.bias is not None:
            y = y.add_(self.bias[:, None])
            return y if residual is None else residual + y
        if residual is None:
            return torch.addcmul(self.shift, self.scale, y)
        return torch.addcmul(residual, self.scale, y).add_(self.shift)

    @torch.no_grad()
    def absorb(self, scale: Tensor, shift: Tensor, after: Tensor | None = None) -> None:
        """Take in the affine of the channels before, ``scale * x + shift``, and a scale of the outputs, in place."""
        scale, shift = fold_token_mixing(self.weight, self.bias, scale, shift, after)
        self.scale = new_parameter(scale, self.weight)
        self.shift = new_parameter(shift, self.weight)
        self.register_parameter('bias', None)

    def extra_repr(self) -> str:
        return f'grid={self.grid}'


def _interpolation(source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Return the matrix (target tokens, source tokens) that resizes a map; its rows sum to 1."""
    length = source[0] * source[1]
    basis = torch.eye(length, dtype=torch.float64).view(1, length, *source)
    resized = nn.functional.interpolate(basis, target, mode='bilinear', align_corners=False, antialias=True)
    return resized.flatten(2)[0].T


def resize_token_mixing(
    weight: Tensor, bias: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the weights of a ``TokenMixing`` for another grid of (rows, columns), computed in float64.

    The new layer does what the old one would do between two resizings of the map: it takes the map to the old grid,
    mixes there, and takes the result back. A map that is constant in space keeps its output. Of L tokens, the weight is
    (L, L), and the bias (L,), or (L, C) of a folded layer.
    """
    down, up = _interpolation(target, source), _interpolation(source, target)
    return (up @ weight.double().cpu() @ down).to(weight), (up @ bias.double().cpu()).to(bias)
