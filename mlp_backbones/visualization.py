"""Figures: their common style, and what models show of themselves. matplotlib is imported when one is drawn."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union

from .checkpoints.files import written_whole
from .launch import UserError, check_target

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
    with plt.rc_context({**STYLE, 'axes.prop_cycle': cycler(color=COLOURS)}):
        figure, axes = plt.subplots(*args, squeeze=False, **kwargs)
        try:
            yield figure, axes
            with written_whole(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], bbox_inches='tight', pad_inches=0.12)
        finally:
            plt.close(figure)
