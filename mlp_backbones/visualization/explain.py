"""What a model computes: feature maps, class activation, token mixing, receptive fields."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.backbones.base import BaseBackbone
from ..models.layers.token_mixing import TokenMixing
from ..utils.errors import InvalidValue


def stage_maps(backbone: BaseBackbone, x: Tensor) -> dict[str, tuple[Tensor, int]]:
    """Return up to four feature maps on the way through a backbone of ours, evenly spaced, the last one among them.

    Args:
        backbone (BaseBackbone): In eval mode.
        x (Tensor): (N, C, H, W), normalized.

    Returns:
        dict[str, tuple[Tensor, int]]: What the stage is called -> its map, (N, C', H', W'), and its stride in pixels.
    """
    built = backbone.num_built
    chosen = sorted({built * (i + 1) // 4 - 1 for i in range(4)} - {-1})
    given, backbone.out_indices = backbone.out_indices, tuple(chosen)
    try:
        maps = backbone(x)
    finally:
        backbone.out_indices = given
    kind = 'block' if hasattr(backbone, 'blocks') else 'stage'
    return {f'{kind} {i + 1}, {m.shape[2]}x{m.shape[3]}': (m, backbone.strides[i]) for i, m in zip(chosen, maps)}


def enlarged(maps: Tensor, stride: int, size: Sequence[int], mode: str) -> Tensor:
    """Resize maps (K, H', W') to an image, (K, *size), which may have been padded to whole strides before."""
    return F.interpolate(maps[None], scale_factor=stride, mode=mode)[0, :, : size[0], : size[1]]


def telling_channels(maps: Tensor, number: int) -> Tensor:
    """Return the channels of a feature map that vary most over the positions and resemble each other least.

    Args:
        maps (Tensor): (C, H, W).
        number (int): How many.

    Returns:
        Tensor: (number, H, W), each from 0 to 1; fewer where there are fewer channels.
    """
    flat = maps.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    left, chosen = flat.clone(), []
    for _ in range(min(number, len(flat))):
        # The largest remainder after what the chosen ones explain is taken away.
        norms = left.norm(dim=1)
        chosen.append(int(norms.argmax()))
        direction = left[chosen[-1]] / norms[chosen[-1]].clamp_min(1e-12)
        left = left - torch.outer(left @ direction, direction)
        left[chosen] = 0
    picked = maps[chosen].flatten(1)
    low, high = (picked.quantile(q, dim=1, keepdim=True) for q in (0.01, 0.99))
    return ((picked - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).view(-1, *maps.shape[1:])


def class_activation(model: Any, x: Tensor, labels: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Compute Grad-CAM (arXiv 1610.02391) on the last feature map of a classifier.

    Args:
        model (nn.Module): mmpretrain's ImageClassifier with one of our backbones, in eval mode.
        x (Tensor): (1, C, H, W), normalized.
        labels (Sequence[int]): The classes asked for.

    Returns:
        tuple[Tensor, Tensor]: A map from 0 to 1 for each label, (len(labels), H, W), and the probabilities of all
        classes.
    """
    with torch.no_grad():
        *maps, last = model.backbone(x)
    with torch.enable_grad():
        last = last.requires_grad_()
        scores = model.head(model.neck((*maps, last)) if model.with_neck else (*maps, last))[0]
        grads = [torch.autograd.grad(scores[label], last, retain_graph=True)[0] for label in labels]
    evidence = torch.cat([(grad.mean((2, 3), keepdim=True) * last.detach()).sum(1).relu() for grad in grads])
    cams = enlarged(evidence, model.backbone.out_strides[-1], x.shape[2:], 'bilinear')
    return cams / cams.amax((1, 2), keepdim=True).clamp_min(1e-12), scores.detach().softmax(0)


def token_kernels(backbone: BaseBackbone) -> dict[int, Tensor]:
    """Return the token mixing of ResMLP or gMLP as spatial kernels.

    Args:
        backbone (BaseBackbone): One of the two.

    Returns:
        dict[int, Tensor]: Block -> (rows, columns, rows, columns): for every token, by its place in the grid, the
        weights of all tokens, by theirs.

    Raises:
        ValueError: The backbone is of another family.
    """
    layers = [m for m in backbone.modules() if isinstance(m, TokenMixing)]
    if not layers:
        raise InvalidValue(f'{type(backbone).__name__} has no token mixing matrices; ResMLP and GMLP have')
    return {i: layer.weight.detach().view(*layer.grid, *layer.grid) for i, layer in enumerate(layers)}


def receptive_fields(backbone: BaseBackbone, inputs: Sequence[Tensor]) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    """Compute effective receptive fields (arXiv 1701.04128): what the center of every stage's map depends on.

    Positive values are added up, as by RepLKNet (arXiv 2203.06717): all channels after a LayerNorm have a constant sum.

    Args:
        backbone (BaseBackbone): In eval mode.
        inputs (Sequence[Tensor]): Images of one size, (1, C, H, W), normalized.

    Returns:
        dict[str, tuple[Tensor, tuple[int, int]]]: What the stage is called -> (H, W), the absolute gradient of the
        position at the center, summed over the channels and averaged over the inputs, the largest 1; and where in the
        image, row and column, the center of that position is.
    """
    total: dict[str, Tensor] = {}
    centers = {}
    for x in inputs:
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            maps = stage_maps(backbone, x)
            for name, (output, stride) in maps.items():
                row, column = (side // 2 for side in output.shape[2:])
                centers[name] = (2 * row + 1) * stride // 2, (2 * column + 1) * stride // 2
                (grad,) = torch.autograd.grad(output[:, :, row, column].relu().sum(), x, retain_graph=True)
                total[name] = total.get(name, 0) + grad.abs().sum((0, 1)).double()
    return {name: (field / field.max().clamp_min(1e-12), centers[name]) for name, field in total.items()}


def side_of(field: Tensor, center: tuple[int, int], share: float) -> int:
    """Return the side of the square around a center, in pixels, that holds a share of a receptive field."""
    row, column = center
    for half in range(1, max(field.shape) + 1):
        square = field[max(row - half, 0) : row + half, max(column - half, 0) : column + half]
        if square.sum() >= share * field.sum():
            break
    return 2 * half
