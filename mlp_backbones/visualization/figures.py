"""Figures of maps, kernels and curves."""

import contextlib
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.utils import make_grid

from ..utils.cli import check_target
from ..utils.errors import UserError
from ..utils.files import written_whole

SUFFIXES = ('.png', '.svg', '.pdf')


def check_figure(path: Path) -> None:
    """Raise ``UserError`` where no figure can be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f'the file to write must end in {", ".join(SUFFIXES)}, got {path}')
    check_target(path)


@contextlib.contextmanager
def drawn(path: str | Path, *args: Any, **kwargs: Any) -> Iterator[tuple]:
    """``plt.subplots(*args, **kwargs)``, written to ``path`` when the block ends without an error."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    path = Path(path)
    with plt.style.context(['seaborn-v0_8-whitegrid', {'text.parse_math': False}]):  # names may have a $
        figure, axes = plt.subplots(*args, squeeze=False, layout='constrained', **kwargs)
        try:
            yield figure, axes
            with written_whole(path) as partial:
                figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)
        finally:
            plt.close(figure)


def tiled(images: Tensor, gap: int = 1) -> Tensor:
    """Return images (rows, columns, height, width) as one, each at its place, with gaps of NaN between them."""
    return _grid(images.flatten(0, 1), images.shape[1], gap)


def mosaic(maps: Tensor) -> Tensor:
    """Return maps (K, H, W) side by side in a square of them."""
    return _grid(maps, math.ceil(math.sqrt(len(maps))), max(round(0.03 * max(maps.shape[1:])), 1))


def _grid(maps: Tensor, columns: int, gap: int) -> Tensor:
    if len(maps) == 1:  # which make_grid gives back without a frame
        return maps[0]
    grid = make_grid(maps[:, None], columns, padding=gap, pad_value=math.nan)
    return grid[0, gap:-gap, gap:-gap]  # without the frame


def gallery(path: Path, rows: dict[str, list[dict[str, Any]]], side: float = 2.1) -> None:
    """Draw images in rows.

    Args:
        path (Path): Where to.
        rows (dict[str, list[dict]]): What a row is called -> its cells: ``image``, (H, W, 3) or (H, W), and ``title``;
            ``overlay``, a map from 0 to 1 to lay over the image; ``note``, a line below it; the rest is for ``imshow``.
        side (float): Width of a cell in inches. Defaults to 2.1.
    """
    columns = max(map(len, rows.values()))
    heights = [max(c['image'].shape[0] / c['image'].shape[1] for c in cells) for cells in rows.values()]
    figsize = (side * columns + 0.4, sum(side * height + 0.6 for height in heights))
    with drawn(path, len(rows), columns, figsize=figsize, height_ratios=heights) as (_, grid):
        for axis in grid.flat:
            axis.grid(False)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for (label, cells), axes, height in zip(rows.items(), grid, heights):
            axes[0].set_ylabel(textwrap.fill(label, max(int(11 * side * height), 6)), fontweight='bold')  # 11 an inch
            for axis, cell in zip(axes, cells):
                _draw_cell(axis, **cell)


def _draw_cell(axis, image: Any, title: str, overlay: Tensor | None = None, note: str = '', **kwargs: Any) -> None:
    axis.imshow(image, **kwargs)
    if overlay is not None:
        axis.imshow(overlay, cmap='turbo', alpha=0.5, vmin=0, vmax=1)
    axis.set_title(textwrap.fill(title, 30), fontsize=8.5, pad=4)
    axis.set_xlabel(note, fontsize=7.5, labelpad=3)
