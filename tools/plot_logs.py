"""Draw loss, learning rate and metrics of one or several runs into one picture.

A run is the work dir of tools/train.py. What was logged before and after --resume is joined. Where the runs have
several metrics, each gets a panel.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import NamedTuple

from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.errors import UserError

METRICS = ('coco/bbox_mAP', 'coco/segm_mAP', 'mIoU', 'accuracy/top1')  # drawn unless others are asked for
NO_METRICS = ('step', 'time', 'data_time', 'epoch', 'iter')


class Run(NamedTuple):
    """What a run logged.

    Attributes:
        name (str): For the legend.
        training (list[dict]): By iteration, with ``step``, ``loss``, ``lr`` and more.
        tests (list[dict]): Of the evaluations, with the iteration as ``step``.
    """

    name: str
    training: list[dict]
    tests: list[dict]

    def metrics(self) -> list[str]:
        return [k for k in dict.fromkeys(k for row in self.tests for k in row) if k not in NO_METRICS]


def read_run(folder: Path, name: str) -> Run:
    """All parts of a run, joined: what a later one did again replaces what there was."""
    if not folder.is_dir():
        raise UserError(f'the work dir {folder} does not exist')
    files = sorted(folder.glob('*/vis_data/scalars.json')) or sorted(folder.glob('vis_data/scalars.json'))
    parts = [read_part(file) for file in files]
    # An epoch is the least number of iterations with which no row would be of the next one.
    logged = [row for rows in parts for row in rows if 'lr' in row and row.get('epoch')]
    epoch = max((math.ceil(row['step'] / row['epoch']) for row in logged), default=1)
    training, tests = [], []
    for rows in parts:
        own = [row for row in rows if 'lr' in row]
        if not own:
            continue
        measured = [{**row, 'step': row['step'] * epoch} for row in rows if 'lr' not in row]
        start = own[0]['step']
        training = [row for row in training if row['step'] < start] + own
        tests = [row for row in tests if row['step'] < start] + measured
    if not training:
        raise UserError(
            f'{folder} has no log of a training run: no */vis_data/scalars.json'
            + (' with a line of training in it' if files else ', which tools/train.py writes')
        )
    return Run(name, training, tests)


def read_part(file: Path) -> list[dict]:
    rows = []
    lines = file.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):  # the last one may be half written
                raise UserError(f'{file}, line {number} is not JSON: {error}') from error
    return [row for row in rows if isinstance(row, dict) and 'step' in row]


def draw(runs: list[Run], metrics: list[str], out: Path) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    from mlp_backbones.visualization.figures import drawn

    panels = {'loss': 'loss', 'lr': 'learning rate', **{m: m for m in metrics}}
    colors = [f'C{i % 10}' for i in range(len(runs))]  # matplotlib's own
    end = max(run.training[-1]['step'] for run in runs)
    with drawn(out, 1, len(panels), figsize=(3.7 * len(panels), 3.1)) as (figure, axes):
        for (key, title), axis in zip(panels.items(), axes[0]):
            last = []
            for run, color in zip(runs, colors):
                rows = [row for row in (run.tests if key in metrics else run.training) if key in row]
                x, y = [row['step'] for row in rows], [row[key] for row in rows]
                marker = 'o' if key in metrics or len(x) == 1 else None
                axis.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1.5)
                last += [(y[-1], x[-1], color)] if key in metrics and rows else []
            axis.set(title=title, xlabel='iteration', xlim=(0, 1.02 * end))
            axis.margins(y=0.12)
            axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if key not in metrics:
                axis.set_ylim(0, None)
            # The last values beside their points, one above the other where they would touch.
            low, high = axis.get_ylim()
            written = []
            for y, x, color in sorted(last):
                near = [height for height, place in written if abs(place - x) < 0.15 * end]
                height = max(y, max(near, default=low) + 0.06 * (high - low))
                written.append((height, x))
                text = dict(textcoords='offset points', va='center', color=color, fontsize=8, annotation_clip=False)
                axis.annotate(f'{y:.3g}', (x, height), (7, 0), **text)
        lines = [Line2D([], [], color=color, linewidth=2) for color in colors]
        figure.legend(lines, [run.name for run in runs], loc='outside upper left', ncols=min(len(runs), 4))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN_DIR', help='work dirs')
    parser.add_argument('--out', type=Path, required=True, help='picture to write, .png, .svg or .pdf')
    parser.add_argument('--metric', nargs='+', default=[], help='what to draw of the evaluations, as in the log')
    parser.add_argument('--names', nargs='+', help='what the legend calls the runs (default: their folders)')
    args = parser.parse_args()

    from mlp_backbones.visualization.figures import check_figure

    check_figure(args.out)
    if args.names and len(args.names) != len(args.runs):
        raise UserError(f'--names: {len(args.names)} names for {len(args.runs)} runs')
    folders = [path.resolve().name for path in args.runs]
    names = args.names or (folders if len(set(folders)) == len(folders) else [str(path) for path in args.runs])
    runs = [read_run(path, name) for path, name in zip(args.runs, names)]
    there = list(dict.fromkeys(key for run in runs for key in run.metrics()))
    if lost := [key for key in args.metric if key not in there]:
        raise UserError(f'no run has {", ".join(lost)}; there is {", ".join(there) or "no evaluation"}')
    draw(runs, args.metric or [key for key in METRICS if key in there] or there[:1], args.out)
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
