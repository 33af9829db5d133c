"""Folding of norms, affines and scales into the linear layers beside them.

The arithmetic is that of pure functions of tensors, which return float64; ``absorb`` gives a layer what they return.
"""

from typing import Any

import torch
from mmengine.model.utils import _BatchNormXd
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils.errors import FoldingError

Linear = nn.Linear | nn.Conv2d | nn.ConvTranspose2d  # what can take in a scale and a shift

# What is folded besides the layers of this package; _BatchNormXd is what mmengine makes of SyncBatchNorm on a CPU.
PLAIN = {nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.SyncBatchNorm, _BatchNormXd, nn.LayerNorm}
PLAIN |= {nn.Identity}


def batch_norm_affine(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm does in eval mode, as the scale and the shift of each channel."""
    scale = (variance.double() + eps).rsqrt()
    if weight is not None:
        scale = weight.double() * scale
    shift = -mean.double() * scale
    return scale, shift if bias is None else bias.double() + shift


def fold_before(weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear layer or 1x1 convolution that takes ``scale * x + shift`` of its inputs x."""
    weight, scale, shift = weight.double(), scale.double().flatten(), shift.double().flatten()
    offset = weight.flatten(1) @ shift
    return weight * scale.view(1, -1, *[1] * (weight.ndim - 2)), offset if bias is None else bias.double() + offset


def fold_after(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor | None = None, dim: int = 0
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer whose outputs are ``scale * y + shift`` of the outputs y; ``dim`` is theirs."""
    scale = scale.double().flatten()
    offset = torch.zeros_like(scale) if shift is None else shift.double().flatten()
    shape = [-1 if axis == dim else 1 for axis in range(weight.ndim)]
    return weight.double() * scale.view(shape), offset if bias is None else bias.double() * scale + offset


def fold_token_mixing(
    weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor, after: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the scale (C,) and the shift (L, C) of a token mixing that takes in the affines around it.

    Weight and bias are (L, L) and (L,); ``scale`` and ``shift``, (C,), of the affine before; ``after``, (C,), a scale
    of the outputs. A scale of the channels commutes with a product over the tokens, so it moves behind the layer:
    W(scale x + shift) + bias = scale W x + (shift rowsum(W) + bias).
    """
    scale, shift = scale.double().flatten(), shift.double().flatten()
    shift = weight.double().sum(1, keepdim=True) * shift + bias.double()[:, None]
    return (scale, shift) if after is None else (scale * after.double(), shift * after.double())


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the scale and the shift that equal a BatchNorm with running statistics."""
    assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
    return batch_norm_affine(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


@torch.no_grad()
def absorb(
    layer: Linear,
    before: tuple[Tensor, Tensor] | None = None,
    after: tuple[Tensor, Tensor | None] | None = None,
) -> None:
    """Let a layer take in the scale and the shift of its inputs or of its outputs, in place."""
    weight: Tensor = layer.weight
    bias: Any = layer.bias
    if before is not None:
        weight, bias = fold_before(weight, bias, *before)
    if after is not None:
        weight, bias = fold_after(weight, bias, *after, dim=1 if isinstance(layer, nn.ConvTranspose2d) else 0)
    layer.weight.copy_(weight)
    layer.bias = new_parameter(bias, layer.weight)


def new_parameter(tensor: Tensor, like: Tensor) -> nn.Parameter:
    """Return a parameter like another one: of its dtype and device, and trained where that one is."""
    return nn.Parameter(tensor.to(like), requires_grad=like.requires_grad)


def without_affine(norm: nn.LayerNorm) -> nn.LayerNorm:
    """Return a LayerNorm without weight and bias, which another layer has taken in."""
    return nn.LayerNorm(list(norm.normalized_shape), norm.eps, elementwise_affine=False)


class Deployable(nn.Module):
    """A backbone or neck with two forms.

    Its parts with a ``switch_to_deploy`` of their own name the layers that it changes in ``layers_to_fold``.

    Attributes:
        deploy (bool): Whether it is in the folded form.
    """

    deploy: bool

    def check_foldable(self) -> None:
        """Raise ``FoldingError`` in training mode, or where a layer may compute something else than its weights say.

        Such layers are of other types than torch's and this package's, as adapters and parametrized layers are, or have
        hooks or a ``forward`` of their own.
        """
        if self.training:
            raise FoldingError(
                f'{type(self).__name__} in training mode, and what is folded are the statistics of eval mode: '
                f'call .eval() first'
            )
        parts: list[Any] = [module for module in self.modules() if hasattr(module, 'layers_to_fold')]
        folded = {layer for part in parts for layer in part.layers_to_fold()}
        strange = []
        for name, layer in self.named_modules():
            cls = type(layer)
            if layer not in folded:
                continue
            if cls not in PLAIN and not cls.__module__.startswith('mlp_backbones.'):
                strange.append(f'{name} is a {cls.__module__}.{cls.__qualname__}')
            elif layer._forward_hooks or layer._forward_pre_hooks or 'forward' in vars(layer):
                strange.append(f'{name} ({cls.__name__}) has hooks or a forward of its own')
        if strange:
            raise FoldingError(
                f'cannot fold: {"; ".join(strange)}. Merge adapters into the layers that they adapt, and remove '
                f'parametrizations (such as weight_norm) and hooks first'
            )

    def switch_to_deploy(self) -> None:
        """Fold norms, affines and parallel branches into the layers beside them, in place.

        Outputs in eval mode are the same. What is folded already stays as it is. See ``mlp_backbones.reparameterize``.

        Raises:
            FoldingError: The module is in training mode, in which the two forms differ, or a layer to be folded is not
                a plain one; nothing was changed then.
        """
        if self.deploy:
            return
        self.check_foldable()
        parts: list[Any] = [m for m in self.modules() if m is not self and hasattr(m, 'switch_to_deploy')]
        for part in parts:
            part.switch_to_deploy()
        self.deploy = True
        self.train(self.training)  # new modules too
