"""Normalizations: affines, and what ``norm_cfg`` names."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ...utils.checks import short_repr
from ...utils.errors import InvalidValue


class Affine(nn.Module):
    """A scale and a shift for each channel, ``alpha * x + beta``: (..., C) -> (..., C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


_NORMS: dict[str, Callable[..., nn.Module]] = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'SyncBN': nn.SyncBatchNorm,
    'GN': nn.GroupNorm,
}


def build_norm(norm_cfg: Mapping, channels: int) -> nn.Module:
    """Build a normalization over (N, C, H, W) from an OpenMMLab ``norm_cfg``, such as ``dict(type='SyncBN')``.

    Args:
        norm_cfg (Mapping): ``type`` is 'BN', 'BN2d', 'SyncBN' or 'GN' (the last with ``num_groups``);
            ``requires_grad`` and the layer's own arguments may follow.
        channels (int): Channels to normalize.

    Raises:
        ValueError: ``norm_cfg`` is not a dict, names an unknown type, or does not fit the layer or the channels.
    """
    known = isinstance(norm_cfg, Mapping) and isinstance(norm_cfg.get('type'), str) and norm_cfg['type'] in _NORMS
    if not known or not isinstance(norm_cfg.get('requires_grad', True), (bool, np.bool_)):
        raise InvalidValue(f'norm_cfg must be a dict whose type is one of {sorted(_NORMS)}, got {short_repr(norm_cfg)}')
    kwargs = dict(norm_cfg)
    kind, requires_grad = kwargs.pop('type'), kwargs.pop('requires_grad', True)
    count = 'num_channels' if kind == 'GN' else 'num_features'
    try:
        norm = _NORMS[kind](**{count: channels}, **kwargs)
    except Exception as error:  # torch's, of many kinds
        raise InvalidValue(f'norm_cfg {short_repr(norm_cfg)} does not fit {channels} channels: {error}') from error
    return norm.requires_grad_(bool(requires_grad))
