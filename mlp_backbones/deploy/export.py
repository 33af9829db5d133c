"""Frameworks' models as functions of tensors, which can be compared, exported and timed."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..models.backbones.base import BaseBackbone
from ..utils.errors import InvalidValue


class TensorModel(nn.Module):
    """A framework's model as a function of tensors only: what can be compared, exported and timed.

    Args:
        model (nn.Module): One of our backbones, or a classifier, segmentor or detector that holds one.

    Shape:
        - Input: (N, C, H, W), normalized.
        - Output: a tuple of tensors. Backbone: its maps. Classifier: the scores before softmax. Segmentor: the scores
          of each class at the stride of its head. One-stage detector: what its head computes before boxes are decoded,
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

    def names(self, x: Tensor) -> list[str]:
        """Return the names of the outputs for images ``x``: what each is, and its level by its stride, 2 ** level."""
        with torch.no_grad():
            outputs = self(x)
        model: Any = self.model
        if len(outputs) == 1:
            return ['scores' if hasattr(model, 'head') or hasattr(model, 'decode_head') else 'features']
        head = getattr(model, 'rpn_head', getattr(model, 'bbox_head', None))
        levels = [f'p{round(math.log2(x.shape[-1] / y.shape[-1]))}' for y in outputs]
        if head is None:
            return [f'features_{level}' for level in levels]
        number = len(head.prior_generator.strides)
        maps = len(outputs) - number * (2 if len(outputs) % 3 or hasattr(model, 'rpn_head') else 3)
        kinds = ['features'] * maps
        for kind in ('scores', 'deltas', 'centerness'):
            kinds += [kind] * number
        return [f'{kind}_{level}' for kind, level in zip(kinds, levels)]


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
        raise InvalidValue(f'a size is a number or HEIGHTxWIDTH in pixels, such as 224 or 800x1216, got {text!r}')
    return int(sides[0]), int(sides[-1])
