"""Figures: their common style, and what models show of themselves. matplotlib is imported when one is drawn."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backbones.base import BaseBackbone
from .checkpoints.files import written_whole
from .launch import UserError, check_target
from .layers import TokenMixing

COLOURS = ('#1b6ca8', '#d1495b', '#3a9d6e', '#e09f3e', '#6a4c93', '#17a2b8', '#8c564b', '#5f6b7a')
INK, FAINT = '#26303b', '#d9dee3'
STYLE = {
    'axes.axisbelow': True,
    'axes.edgecolor': '#8894a0',
    'axes.grid': True,
    'axes.labelcolor': INK,
    'axes.linewidth': 0.8,
    'axes.spines.right': False,
    'axes.spines.top': False,
    'axes.titlelocation': 'left',
    'axes.titlesize': 10,
    'font.size': 9,
    'grid.color': FAINT,
    'grid.linewidth': 0.6,
    'legend.frameon': False,
    'savefig.dpi': 150,
    'text.color': INK,
    'xtick.color': '#5f6b7a',
    'ytick.color': '#5f6b7a',
}
SUFFIXES = ('.png', '.svg', '.pdf')


def check_figure(path: Path, force: bool = True) -> None:
    """Raise ``UserError`` where no figure can be written, or, without ``force``, where there is one already."""
    if path.suffix not in SUFFIXES:
        raise UserError(f'the file to write must end in {", ".join(SUFFIXES)}, got {path}')
    if path.exists() and not force:
        raise UserError(f'{path} is there already; --force replaces it')
    check_target(path)


@contextlib.contextmanager
def drawn(path: Union[str, Path], *args: Any, **kwargs: Any) -> Iterator[tuple]:
    """``plt.subplots(*args, **kwargs)`` in our style, written to ``path`` when the block ends without an error."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    from cycler import cycler

    path = Path(path)
    style: Any = {**STYLE, 'axes.prop_cycle': cycler(color=COLOURS)}
    with plt.rc_context(style):
        figure, axes = plt.subplots(*args, squeeze=False, **kwargs)
        try:
            yield figure, axes
            with written_whole(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], bbox_inches='tight', pad_inches=0.12)
        finally:
            plt.close(figure)


def stage_maps(backbone: BaseBackbone, x: Tensor, most: int = 4) -> dict[str, Tensor]:
    """Feature maps on the way through a backbone of ours.

    Args:
        backbone (BaseBackbone): In eval mode.
        x (Tensor): (N, C, H, W), normalised.
        most (int): How many, evenly spaced, the last stage among them. Defaults to 4.

    Returns:
        dict[str, Tensor]: What the stage is called -> its map, (N, C', H', W').
    """
    built = backbone.num_built
    chosen = sorted({built * (i + 1) // most - 1 for i in range(most)} - {-1})
    given, backbone.out_indices = backbone.out_indices, tuple(chosen)
    try:
        maps = backbone(x)
    finally:
        backbone.out_indices = given
    kind = 'block' if hasattr(backbone, 'blocks') else 'stage'
    return {f'{kind} {i + 1}, {m.shape[2]}x{m.shape[3]}': m for i, m in zip(chosen, maps)}


def telling_channels(maps: Tensor, number: int) -> Tensor:
    """The channels of a feature map that vary most over the positions and resemble each other least.

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
    """Grad-CAM (arXiv 1610.02391) on the last feature map of a classifier.

    Args:
        model (nn.Module): mmpretrain's ImageClassifier with one of our backbones, in eval mode.
        x (Tensor): (1, C, H, W), normalised.
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
    evidence = [(grad.mean((2, 3), keepdim=True) * last.detach()).sum(1, keepdim=True).relu() for grad in grads]
    cams = F.interpolate(torch.cat(evidence), x.shape[2:], mode='bilinear', align_corners=False)[:, 0]
    return cams / cams.amax((1, 2), keepdim=True).clamp_min(1e-12), scores.detach().softmax(0)


def token_kernels(backbone: BaseBackbone) -> dict[int, Tensor]:
    """The token mixing of ResMLP or gMLP as spatial kernels.

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
        raise ValueError(f'{type(backbone).__name__} has no token mixing matrices; ResMLP and GMLP have')
    return {i: layer.weight.detach().view(*layer.grid, *layer.grid) for i, layer in enumerate(layers)}


def receptive_fields(backbone: BaseBackbone, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Effective receptive fields (arXiv 1701.04128): what the centre of every stage's map depends on.

    Args:
        backbone (BaseBackbone): In eval mode.
        inputs (Sequence[Tensor]): Images of one size, (1, C, H, W), normalised.

    Returns:
        dict[str, Tensor]: What the stage is called -> (H, W), the absolute gradient of the position at the centre,
        summed over the channels and averaged over the inputs; the largest is 1.
    """
    total: dict[str, Tensor] = {}
    for x in inputs:
        x = x.detach().clone().requires_grad_()
        with torch.enable_grad():
            maps = stage_maps(backbone, x)
            for name, output in maps.items():
                centre = output[:, :, output.shape[2] // 2, output.shape[3] // 2].sum()
                (grad,) = torch.autograd.grad(centre, x, retain_graph=True)
                total[name] = total.get(name, 0) + grad.abs().sum((0, 1)).double()
    return {name: field / field.max().clamp_min(1e-12) for name, field in total.items()}


def side_of(field: Tensor, share: float) -> Optional[int]:
    """Side of the square around the centre, in pixels, that holds a share of a receptive field."""
    rows, columns = field.shape
    for half in range(max(rows, columns)):
        top, left = max(rows // 2 - half, 0), max(columns // 2 - half, 0)
        if field[top : rows // 2 + half + 1, left : columns // 2 + half + 1].sum() >= share * field.sum():
            return 2 * half + 1
    return None


def is_ours(model: nn.Module, name: str) -> None:
    """Raise ``UserError`` where the backbone of a model is none of ours."""
    if not isinstance(model.backbone, BaseBackbone):
        raise UserError(f'the backbone of {name} is {type(model.backbone).__name__}, which is none of ours')


def mosaic(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (K, H, W) side by side in a square of them, with gaps that are no numbers; each resized to ``size``."""
    maps = F.interpolate(maps[None], tuple(size), mode='nearest')[0]
    columns = math.ceil(math.sqrt(len(maps)))
    rows = math.ceil(len(maps) / columns)
    gap = max(round(0.03 * max(size)), 1)
    canvas = maps.new_full((rows * (size[0] + gap) - gap, columns * (size[1] + gap) - gap), math.nan)
    for i, tile in enumerate(maps):
        top, left = i // columns * (size[0] + gap), i % columns * (size[1] + gap)
        canvas[top : top + size[0], left : left + size[1]] = tile
    return canvas


def kernel_mosaic(kernels: Tensor) -> Tensor:
    """Kernels (rows, columns, rows, columns) each at its token's place, with gaps that are no numbers."""
    rows, columns = kernels.shape[:2]
    padded = F.pad(kernels, (0, 1, 0, 1), value=math.nan)
    return padded.permute(0, 2, 1, 3).reshape(rows * (rows + 1), columns * (columns + 1))[:-1, :-1]


def gallery(path: Path, rows: dict[str, list[dict[str, Any]]], side: float = 2.1) -> None:
    """Draw images in rows.

    Args:
        path (Path): Where to.
        rows (dict[str, list[dict]]): What a row is called -> its cells: ``image``, (H, W, 3) or (H, W), and ``title``;
            ``cmap`` for the colours of numbers, from 0 to 1 or, ``diverging``, around 0; ``overlay``, a map from 0 to 1
            to lay over the image; ``note``, a line below it.
        side (float): Width of a cell in inches. Defaults to 2.1.
    """
    columns = max(map(len, rows.values()))
    heights = [max(c['image'].shape[0] / c['image'].shape[1] for c in cells) for cells in rows.values()]
    notes = 0.2 * any('note' in c for cells in rows.values() for c in cells)
    width = max(side * columns, 0.095 * max(map(len, rows)))
    figsize = (width, sum(side * h + 0.6 + notes for h in heights))
    options = dict(figsize=figsize, layout='constrained', height_ratios=heights)
    with drawn(path, len(rows), columns, **options) as (_, grid):
        for (label, cells), axes in zip(rows.items(), grid):
            for axis, cell in zip(axes, [*cells, *[None] * columns]):
                axis.grid(False)
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if cell is not None:
                    _draw_cell(axis, **cell)
            # The name of a row is above its first title, which makes room for it, and may be wider than its column.
            axes[0].set_title('\n\n' + axes[0].get_title(), fontsize=8.5, loc='center', pad=4)
            where = dict(xycoords='axes fraction', xytext=(0, 20), textcoords='offset points')
            axes[0].annotate(label, (0, 1), fontsize=10, fontweight='bold', **where).set_in_layout(False)


def _draw_cell(
    axis,
    image: Any,
    title: str,
    cmap: Optional[str] = None,
    diverging: bool = False,
    overlay: Optional[Tensor] = None,
    note: str = '',
) -> None:
    kwargs: dict[str, Any] = {}
    if cmap is not None:
        most = 1.0
        if diverging:
            numbers = image[~image.isnan()].abs().float()
            most = float(torch.quantile(numbers[:: len(numbers) // 1_000_000 + 1], 0.995)) or 1.0
        kwargs = dict(cmap=cmap, vmin=-most if diverging else 0, vmax=most)
        # Small numbers of pixels are made many, so that all get the same size on paper.
        times = max(1200 // image.shape[1], 1)
        image = image.repeat_interleave(times, 0).repeat_interleave(times, 1)
    axis.imshow(image, **kwargs)
    if overlay is not None:
        axis.imshow(overlay, cmap='turbo', alpha=0.5, vmin=0, vmax=1)
    axis.set_title(title, fontsize=8.5, loc='center', pad=4)
    if note:
        axis.set_xlabel(note, fontsize=7.5, labelpad=3)
