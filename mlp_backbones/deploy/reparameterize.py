"""Whole models folded into their deploy form, and both forms compared."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from ..models.backbones.base import BaseBackbone
from ..models.layers.folding import Deployable
from ..models.necks import SimpleFeaturePyramid
from ..utils.errors import FoldingError, InvalidValue
from .export import tensors_of

TOLERANCE = 1e-4  # of the largest output: two forms of a model that differ by more are not the same


@torch.inference_mode(False)  # or the new weights could never be loaded into or trained
def reparameterize(model: nn.Module, inplace: bool = False, check: bool = True) -> nn.Module:
    """Fold what can be folded exactly in our backbones and neck, wherever they are in a model.

    BatchNorm goes into convolutions, affines, layer scales and the weights and biases of LayerNorm into linear layers,
    and RepMLP's local perceptron into its tiles' linear layer (locality injection, arXiv 2112.11081). Outputs in eval
    mode are the same up to rounding. Convolutions and norms of the framework's own necks and heads are left to
    ``mmcv.cnn.fuse_conv_bn``, which goes well with this.

    Args:
        model (nn.Module): A backbone, or a model that holds some, in eval mode.
        inplace (bool): Fold ``model`` itself instead of a copy. Defaults to False.
        check (bool): Compare both forms of each part on one small random input; of models in half precision, whose
            rounding would hide a fault, nothing is compared. Defaults to True.

    Returns:
        nn.Module: The folded model. What is folded already stays as it is.

    Raises:
        FoldingError: One of the backbones or necks is in training mode, a layer to be folded is not a plain one (an
            adapter, a parametrized or hooked layer), or the two forms differ.
        ValueError: There is none of our backbones in the model.
    """
    ours = [m for m in model.modules() if isinstance(m, Deployable)]
    if not any(isinstance(m, BaseBackbone) for m in ours):
        raise InvalidValue(
            f'{type(model).__name__} holds no backbone of mlp_backbones (ConvMLP, ResMLP, GMLP, RepMLP): '
            f'there is nothing to fold'
        )
    ours = [m for m in ours if not m.deploy]
    for module in ours:  # all of them before one is changed, or copied: torch cannot copy some parametrized layers
        module.check_foldable()
    if not inplace:
        return reparameterize(copy.deepcopy(model), inplace=True, check=check)
    for module in ours:
        parameter = next(module.parameters())
        compared = check and parameter.dtype in (torch.float32, torch.float64) and not parameter.is_meta
        expected = _outputs(module) if compared else ()
        module.switch_to_deploy()
        difference = relative_difference(_outputs(module), expected) if compared else 0.0
        if not difference <= TOLERANCE:
            raise FoldingError(
                f'the folded {type(module).__name__} differs by {difference:.1e} of its largest output, more than '
                f'{TOLERANCE}: a layer computes something else than its weights say'
            )
    return model


@torch.no_grad()
def _outputs(module: Any) -> tuple[Tensor, ...]:
    """Return what one of our backbones or necks gives for a small random input, the same at each call."""
    generator = torch.Generator().manual_seed(0)  # the caller's random numbers stay as they are
    neck = isinstance(module, SimpleFeaturePyramid)
    size = (8, 8) if neck else module.size_step or module.img_size
    x = torch.randn(1, module.in_channels, *size, generator=generator).to(next(module.parameters()))
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False):
        return module([x] if neck else x)


def relative_difference(outputs: object, expected: object) -> float:
    """Return the largest difference between two (nested) outputs, relative to the largest absolute value expected.

    It is infinite where a value is not finite.

    Args:
        outputs (Tensor | Sequence | Mapping): The outputs to judge.
        expected (Tensor | Sequence | Mapping): The correct ones, of the same structure.

    Returns:
        float: 0 where both are equal.

    Raises:
        ValueError: Their structures or shapes differ.
    """
    given, wanted = tensors_of(outputs), tensors_of(expected)
    shapes, wanted_shapes = ([tuple(t.shape) for t in tensors] for tensors in (given, wanted))
    if shapes != wanted_shapes:
        raise ValueError(f'outputs of shapes {shapes}, expected {wanted_shapes}')
    differences = [0.0]
    for pair in zip(given, wanted):
        a, b = (t.detach().double().cpu() for t in pair)
        if a.numel():
            difference, largest = (a - b).abs().max().item(), b.abs().max().item()
            differences.append(difference / (largest or 1) if math.isfinite(difference) else math.inf)
    return max(differences)
