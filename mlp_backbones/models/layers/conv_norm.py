"""Convolutions with the norm after them, in both forms."""

import itertools
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .folding import Linear, absorb, affine_of, fold_after
from .norm import build_norm


def norm_after(norm_cfg: Mapping, channels: int, deploy: bool) -> nn.Module:
    """Return the norm after a convolution; in deploy form, an identity in the place of one that can be folded."""
    norm = build_norm(norm_cfg, channels)
    return nn.Identity() if deploy and is_foldable(norm) else norm


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    norm_cfg: Mapping,
    deploy: bool,
    layer: type[nn.Conv2d] = nn.Conv2d,
    **kwargs: Any,
) -> list[nn.Module]:
    """Return a convolution, with further arguments of ``nn.Conv2d``, and its norm, as of ``build_norm``.

    The convolution has a bias only in the place of a folded norm.
    """
    norm = norm_after(norm_cfg, out_channels, deploy)
    return [layer(in_channels, out_channels, kernel, bias=isinstance(norm, nn.Identity), **kwargs), norm]


def is_foldable(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Return whether a norm has running statistics; without, it does the same in eval mode as in training."""
    return isinstance(norm, _BatchNorm) and norm.running_var is not None


class FoldableSequential(nn.Sequential):
    """A sequence in which every BatchNorm can be folded into the convolution that it follows."""

    def _pairs(self) -> list[tuple[Linear, str, _BatchNorm]]:
        """Return (convolution, name of the norm, norm)."""
        return [
            (conv, name, norm)
            for (_, conv), (name, norm) in itertools.pairwise(self.named_children())
            if is_foldable(norm) and isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        ]

    def layers_to_fold(self) -> list[nn.Module]:
        return [layer for conv, _, norm in self._pairs() for layer in (conv, norm)]

    def switch_to_deploy(self) -> None:
        """Fold every BatchNorm into its convolution; an identity takes its place."""
        for conv, name, norm in self._pairs():
            absorb(conv, after=affine_of(norm))
            setattr(self, name, nn.Identity())


class ConvNorm(FoldableSequential):
    """A convolution, its norm, and a ReLU if asked for; arguments as for ``conv_norm``."""

    conv: nn.Conv2d
    bn: nn.Module

    def __init__(self, *args: Any, relu: bool = False, **kwargs: Any) -> None:
        conv, norm = conv_norm(*args, **kwargs)
        layers = OrderedDict(conv=conv, bn=norm)
        if relu:
            layers['relu'] = nn.ReLU(inplace=True)
        super().__init__(layers)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias, in float64, of the one convolution that equals this one and its norm."""
        weight, bias = self.conv.weight, self.conv.bias
        if isinstance(self.bn, nn.Identity):  # folded by others
            return fold_after(weight, bias, torch.ones(len(weight), device=weight.device))
        return fold_after(weight, bias, *affine_of(self.bn))
