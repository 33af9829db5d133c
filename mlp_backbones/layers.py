"""Layers that several families share."""

import contextlib
from collections.abc import Callable

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth


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


def drop_path(rate: float) -> nn.Module:
    """Stochastic depth per sample (arXiv 1603.09382), or the identity at rate 0."""
    return StochasticDepth(rate, 'row') if rate > 0 else nn.Identity()


_NORMS: dict[str, Callable[..., nn.Module]] = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'SyncBN': nn.SyncBatchNorm,
    'GN': nn.GroupNorm,
}


def build_norm(norm_cfg: dict, channels: int) -> nn.Module:
    """A normalisation over (N, C, H, W) from an OpenMMLab ``norm_cfg``, such as ``dict(type='SyncBN')``.

    Args:
        norm_cfg (dict): ``type`` is 'BN', 'BN2d', 'SyncBN' or 'GN' (the last with ``num_groups``);
            ``requires_grad`` and the layer's own arguments may follow.
        channels (int): Channels to normalise.

    Raises:
        ValueError: ``norm_cfg`` is not a dict, or names an unknown type.
    """
    if not isinstance(norm_cfg, dict) or norm_cfg.get('type') not in _NORMS:
        raise ValueError(f'norm_cfg must be a dict whose type is one of {sorted(_NORMS)}, got {norm_cfg!r}')
    kwargs = dict(norm_cfg)
    kind, requires_grad = kwargs.pop('type'), kwargs.pop('requires_grad', True)
    if kind == 'GN':
        norm: nn.Module = nn.GroupNorm(num_channels=channels, **kwargs)
    else:
        norm = _NORMS[kind](channels, **kwargs)
    return norm.requires_grad_(requires_grad)


@contextlib.contextmanager
def _statistics_untouched(module: nn.Module):
    """Keep BatchNorm from counting a batch a second time while a checkpoint recomputes it."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def checkpoint(module: nn.Module, x: Tensor) -> Tensor:
    """``module(x)`` whose activations are computed again in the backward pass instead of being kept.

    Outputs, gradients and BatchNorm's running statistics are those of a plain call.
    """
    return torch.utils.checkpoint.checkpoint(
        module,
        x,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _statistics_untouched(module)),
    )
