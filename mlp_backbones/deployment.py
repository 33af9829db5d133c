"""Whole models for deployment: folded, and as functions of tensors."""

import copy
import math
from pathlib import Path
from typing import Any, Union

import torch
from torch import Tensor, nn

from .backbones.base import BaseBackbone
from .layers import check_eval
from .necks import SimpleFeaturePyramid

TOLERANCE = 1e-4  # of the largest answer: two forms of a model that differ by more are not the same


@torch.inference_mode(False)  # or the new weights could never be loaded into or trained
def reparameterize(model: nn.Module, inplace: bool = False) -> nn.Module:
    """Fold what can be folded exactly in our backbones and neck, wherever they are in a model.

    BatchNorm goes into convolutions, affines, layer scales and the weights and biases of LayerNorm into linear layers,
    and RepMLP's local perceptron into its tiles' linear layer (locality injection, arXiv 2112.11081). Outputs in eval
    mode are the same up to rounding. Convolutions and norms of the host's own necks and heads are left to
    ``mmcv.cnn.fuse_conv_bn``, which goes well with this.

    Args:
        model (nn.Module): A backbone, or a model that holds some, in eval mode.
        inplace (bool): Fold ``model`` itself instead of a copy. Defaults to False.

    Returns:
        nn.Module: The folded model. What is folded already stays as it is.

    Raises:
        RuntimeError: One of the backbones or necks is in training mode.
        ValueError: There is none of our backbones in the model.
    """
    ours = [m for m in model.modules() if isinstance(m, (BaseBackbone, SimpleFeaturePyramid))]
    if not any(isinstance(m, BaseBackbone) for m in ours):
        raise ValueError(
            f'{type(model).__name__} holds no backbone of mlp_backbones (ConvMLP, ResMLP, GMLP, RepMLP): '
            f'there is nothing to fold'
        )
    check_eval(*ours)
    if not inplace:
        return reparameterize(copy.deepcopy(model), inplace=True)
    for module in ours:
        module.switch_to_deploy()
    return model


class TensorModel(nn.Module):
    """A host's model as a function of tensors only: what can be compared, exported and timed.

    Args:
        model (nn.Module): One of our backbones, or a classifier, segmentor or detector that holds one.

    Shape:
        - Input: (N, C, H, W), normalised.
        - Output: a tuple of tensors. Backbone: its maps. Classifier: the scores before softmax. Segmentor: the scores
          of each class at the stride of its head. One-stage detector: what its head answers before boxes are decoded,
          kind by kind, each from the finest to the coarsest level. Two-stage detector: its maps, and the same of its
          region proposal network.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        model: Any = self.model
        if isinstance(model, BaseBackbone):
            return model(x)
        head = getattr(model, 'rpn_head', getattr(model, 'bbox_head', None))
        if head is None:
            return tuple(tensors_of(model(x, mode='tensor')))
        maps = model.extract_feat(x)
        return (*(maps if hasattr(model, 'rpn_head') else ()), *tensors_of(head(maps)))


def relative_difference(outputs: object, expected: object) -> float:
    """The largest difference between two (nested) outputs, relative to the largest absolute value expected;
    infinite where a value is not finite.

    Args:
        outputs (Tensor | Sequence | Mapping): What was answered.
        expected (Tensor | Sequence | Mapping): What should have been, of the same structure.

    Returns:
        float: 0 where both are equal.

    Raises:
        ValueError: Their structures or shapes differ.
    """
    pairs = list(zip(tensors_of(outputs), tensors_of(expected)))
    if len(tensors_of(outputs)) != len(tensors_of(expected)) or any(a.shape != b.shape for a, b in pairs):
        raise ValueError(
            f'outputs of shapes {[tuple(t.shape) for t in tensors_of(outputs)]}, '
            f'expected {[tuple(t.shape) for t in tensors_of(expected)]}'
        )
    return max((_relative(a.detach(), b.detach()) for a, b in pairs), default=0.0)


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.double().cpu(), b.double().cpu()
    if not a.numel():
        return 0.0
    difference, largest = (a - b).abs().max().item(), b.abs().max().item()
    if not math.isfinite(difference):  # where one of them, or both, is infinite or no number
        return math.inf
    return difference / largest if largest else difference


def tensors_of(outputs: object) -> list[Tensor]:
    """The tensors of a nested output, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, (list, tuple)):
        return [t for part in outputs for t in tensors_of(part)]
    return []


def parse_size(text: str) -> tuple[int, int]:
    """``'224'`` or ``'800x1216'`` as (height, width).

    Raises:
        ValueError: It is neither.
    """
    sides = str(text).lower().split('x')
    if len(sides) not in (1, 2) or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError(f'a size is a number or HEIGHTxWIDTH in pixels, such as 224 or 800x1216, got {text!r}')
    return int(sides[0]), int(sides[-1])


def read_image(model: nn.Module, path: Union[str, Path]) -> Tensor:
    """A picture as a host's model gets it, (1, 3, H, W): through its data preprocessor, at the picture's own size.

    Args:
        model (nn.Module): With a ``data_preprocessor``.
        path (str | Path): The picture.

    Returns:
        Tensor: Normalised, on the device of the preprocessor.

    Raises:
        ValueError: The file is not there, or is no picture.
    """
    import cv2

    image = cv2.imread(str(path)) if Path(path).is_file() else None  # BGR, as the hosts read
    if image is None:
        raise ValueError(f'{path} is {"no picture that can be read" if Path(path).exists() else "not there"}')
    preprocessor = model.get_submodule('data_preprocessor')
    return preprocessor(dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))['inputs']
