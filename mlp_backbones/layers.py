"""Layers that several families share."""

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional, Union

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from .checks import said

Linear = Union[nn.Linear, nn.Conv2d, nn.ConvTranspose2d]  # what can take in a scale and a shift


class Mlp(nn.Module):
    """Two linear layers with a GELU between them, over the last dimension: (..., C) -> (..., C).

    Args:
        channels (int): Channels in and out.
        hidden_channels (int): Channels between the two layers.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Affine(nn.Module):
    """A scale and a shift for each channel, ``alpha * x + beta``: (..., C) -> (..., C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class PatchEmbed(nn.Module):
    """Non-overlapping patches, embedded: (N, in_channels, H, W) -> (N, C, H/patch, W/patch)."""

    def __init__(self, in_channels: int, channels: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def _product_dtype(x: Tensor) -> torch.dtype:
    """The dtype that a matrix product with ``x`` is computed in."""
    kind = x.device.type
    if kind not in ('cpu', 'cuda'):
        return x.dtype
    if hasattr(torch, 'get_autocast_dtype'):  # torch 2.4 and later
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    if kind == 'cuda':
        return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else x.dtype
    return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else x.dtype


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm does in eval mode, as the scale and the shift of each channel, in float64.

    An identity, which others leave behind when they fold, is a scale of 1.
    """
    if isinstance(norm, nn.Identity):
        return torch.ones(1, dtype=torch.double), torch.zeros(1, dtype=torch.double)
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else norm.weight.double() * scale
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else norm.bias.double() + shift


@torch.no_grad()
def fold_before(layer: Linear, scale: Tensor, shift: Tensor) -> None:
    """Let a linear layer or a 1x1 convolution take in ``scale * x + shift`` of its inputs, in place."""
    weight, scale = layer.weight.double(), scale.double().flatten()
    _set_bias(layer, _bias(layer) + weight.flatten(1) @ shift.double().flatten())
    layer.weight.copy_(weight * scale.view(1, -1, *[1] * (weight.ndim - 2)))


@torch.no_grad()
def fold_after(layer: Linear, scale: Tensor, shift: Optional[Tensor] = None) -> None:
    """Let a linear layer or a convolution take in ``scale * y + shift`` of its answers, in place."""
    scale = scale.double().flatten()
    _set_bias(layer, _bias(layer) * scale + (0 if shift is None else shift.double().flatten()))
    axes = [1] * layer.weight.ndim
    axes[1 if isinstance(layer, nn.ConvTranspose2d) else 0] = -1
    layer.weight.copy_(layer.weight.double() * scale.view(axes))


def _bias(layer: Linear) -> Tensor:
    if layer.bias is not None:
        return layer.bias.double()
    return layer.weight.new_zeros(layer.weight.shape[0], dtype=torch.double)


def _set_bias(layer: Linear, bias: Tensor) -> None:
    layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=layer.weight.requires_grad)


def check_eval(*modules: nn.Module) -> None:
    """Refuse to fold modules in training mode.

    Raises:
        RuntimeError: At least one of them is.
    """
    training = sorted({type(m).__name__ for m in modules if m.training})
    if training:
        raise RuntimeError(
            f'{", ".join(training)} in training mode, and what is folded are the statistics of eval mode: '
            f'call .eval() first'
        )


def fold_norms(layers: nn.Module) -> None:
    """Fold every BatchNorm that follows a convolution into it, in place; an identity takes its place.

    One without running statistics stays, since it does the same in eval mode as in training.
    """
    for (_, conv), (name, norm) in itertools.pairwise(layers.named_children()):
        if not isinstance(norm, _BatchNorm) or norm.running_var is None:
            continue
        if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)):
            fold_after(conv, *affine_of(norm))
            setattr(layers, name, nn.Identity())


def take_affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Take weight and bias out of a LayerNorm, which goes on without."""
    weight, bias = norm.weight, norm.bias
    norm.register_parameter('weight', None)
    norm.register_parameter('bias', None)
    norm.elementwise_affine = False
    return weight, bias


class TokenMixing(nn.Module):
    """A linear layer over the tokens of a grid, the same for every channel: (B, L, C) -> (B, L, C).

    Args:
        grid (tuple[int, int]): Rows and columns; L is their product.
    """

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        length = grid[0] * grid[1]
        self.grid = grid
        self.weight = nn.Parameter(torch.empty(length, length))
        self.bias = nn.Parameter(torch.zeros(length))
        self.scale: Optional[nn.Parameter] = None  # (C,) of a folded layer,
        self.shift: Optional[nn.Parameter] = None  # and (L, C) in place of its bias
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, residual: Optional[Tensor] = None) -> Tensor:
        """Mix the tokens of ``x``; a folded layer adds a residual while it is at it."""
        # The channels stay the last dimension: a product from the left instead of two transpositions.
        # Cast before it is expanded: autocast would copy it for every sample.
        y = torch.bmm(self.weight.to(_product_dtype(x)).expand(x.shape[0], -1, -1), x)
        if self.scale is None or self.shift is None:
            return y.add_(self.bias[:, None])
        if residual is None:
            return torch.addcmul(self.shift, self.scale, y)
        return torch.addcmul(residual, self.scale, y).add_(self.shift)

    @torch.no_grad()
    def fold_affine(self, scale: Tensor, shift: Tensor, after: Optional[Tensor] = None) -> None:
        """Take in the affine of the channels that comes before, ``scale * x + shift``, and a scale that comes after.

        A scale of the channels commutes with a product over the tokens, so it moves behind the layer:
        W(scale x + shift) + bias = scale W x + (shift rowsum(W) + bias).

        Args:
            scale (Tensor): (C,).
            shift (Tensor): (C,).
            after (Tensor, optional): (C,), what the answer was multiplied by.
        """
        scale, shift = scale.double().flatten(), shift.double().flatten()
        shift = self.weight.double().sum(1, keepdim=True) * shift + self.bias.double()[:, None]
        if after is not None:
            scale, shift = scale * after.double(), shift * after.double()
        trained = self.weight.requires_grad
        self.scale = nn.Parameter(scale.to(self.weight), requires_grad=trained)
        self.shift = nn.Parameter(shift.to(self.weight), requires_grad=trained)
        self.register_parameter('bias', None)

    def extra_repr(self) -> str:
        return f'grid={self.grid}'


def _interpolation(source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """The matrix (target tokens, source tokens) that resizes a map; its rows sum to 1."""
    length = source[0] * source[1]
    basis = torch.eye(length, dtype=torch.float64).view(1, length, *source)
    resized = nn.functional.interpolate(basis, target, mode='bilinear', align_corners=False, antialias=True)
    return resized.flatten(2)[0].T


def resize_token_mixing(
    weight: Tensor, bias: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The weights of a ``TokenMixing`` for another grid.

    The new layer does what the old one would do between two resizings of the map: it takes the map to the old grid,
    mixes there, and takes the result back. A map that is constant in space keeps its answer.

    Args:
        weight (Tensor): (L, L), L the tokens of ``source``.
        bias (Tensor): (L,), or (L, C) of a folded layer.
        source (tuple[int, int]): Rows and columns of the old grid.
        target (tuple[int, int]): Rows and columns of the new one.

    Returns:
        tuple[Tensor, Tensor]: Weight (L', L') and bias (L',), as exact as float64 makes them.
    """
    if tuple(source) == tuple(target):
        return weight, bias
    down, up = _interpolation(target, source), _interpolation(source, target)
    return (up @ weight.double().cpu() @ down).to(weight), (up @ bias.double().cpu()).to(bias)


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


class WindowPropagation(nn.Module):
    """What windows tell each other: a depthwise convolution over the whole map, added to it.

    It starts at zero, so that a pretrained model is unchanged at first: (N, H, W, C) -> (N, H, W, C).

    Args:
        channels (int): Channels of the map.
        kernel_size (int): Odd. Defaults to 3.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        for parameter in self.conv.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def drop_path(rate: float) -> nn.Module:
    """Stochastic depth per sample (arXiv 1603.09382), or the identity at rate 0."""
    return StochasticDepth(rate, 'row') if rate > 0 else nn.Identity()


_NORMS: dict[str, Callable[..., nn.Module]] = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'SyncBN': nn.SyncBatchNorm,
    'GN': nn.GroupNorm,
}


def build_norm(norm_cfg: Mapping, channels: int) -> nn.Module:
    """A normalisation over (N, C, H, W) from an OpenMMLab ``norm_cfg``, such as ``dict(type='SyncBN')``.

    Args:
        norm_cfg (Mapping): ``type`` is 'BN', 'BN2d', 'SyncBN' or 'GN' (the last with ``num_groups``);
            ``requires_grad`` and the layer's own arguments may follow.
        channels (int): Channels to normalise.

    Raises:
        ValueError: ``norm_cfg`` is not a dict, names an unknown type, or does not fit the layer or the channels.
    """
    known = isinstance(norm_cfg, Mapping) and isinstance(norm_cfg.get('type'), str) and norm_cfg['type'] in _NORMS
    if not known or not isinstance(norm_cfg.get('requires_grad', True), bool):
        raise ValueError(f'norm_cfg must be a dict whose type is one of {sorted(_NORMS)}, got {said(norm_cfg)}')
    kwargs = dict(norm_cfg)
    kind, requires_grad = kwargs.pop('type'), kwargs.pop('requires_grad', True)
    count = 'num_channels' if kind == 'GN' else 'num_features'
    try:
        norm = _NORMS[kind](**{count: channels}, **kwargs)
    except Exception as error:  # torch's, of many kinds
        raise ValueError(f'norm_cfg {said(norm_cfg)} does not fit {channels} channels: {error}') from error
    return norm.requires_grad_(requires_grad)


@contextlib.contextmanager
def _statistics_untouched(module: nn.Module):
    """Keep BatchNorm from counting a batch a second time while a checkpoint recomputes it."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()  # SyncBN wants one
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` whose activations are computed again in the backward pass instead of being kept.

    Outputs, gradients and BatchNorm's running statistics are those of a plain call.
    """
    kwargs: dict[str, Any] = {}
    if any(
        isinstance(m, _BatchNorm) and m.training for m in module.modules()
    ):  # torch.compile does without the context
        kwargs['context_fn'] = lambda: (contextlib.nullcontext(), _statistics_untouched(module))
    return torch.utils.checkpoint.checkpoint(module, x, use_reentrant=False, **kwargs)
