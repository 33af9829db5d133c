#!/usr/bin/env python
"""Train every family on the synthetic shapes with several seeds, and print the table of docs/shapes.md.

  python tools/shapes_study.py --out work_dirs/study
  python tools/shapes_study.py --out work_dirs/study --pretrained --tasks retinanet --seeds 0 1 2

Runs that are finished are not repeated, and one that was interrupted goes on: the command can be given again at any
time. With --pretrained, the backbones of the dense tasks start from the classifier of the same family and seed, as the
configs for COCO and ADE20K do from ImageNet. --cfg-options are for every run, and belong to a folder of their own.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from mlp_backbones.utils.cli import check_writable, run_tool
from mlp_backbones.utils.errors import UserError

CONFIGS = Path(__file__).parents[1] / 'configs'
FAMILIES = {'convmlp': 'convmlp_s', 'repmlp': 'repmlp_t224', 'resmlp': 'resmlp_p8', 'gmlp': 'gmlp_p8'}
TASKS = {  # metrics, and by what they are multiplied
    'classification': {'accuracy/top1': 1},
    'retinanet': {'coco/bbox_mAP': 100},
    'maskrcnn': {'coco/bbox_mAP': 100, 'coco/segm_mAP': 100},
    'semantic_fpn': {'mIoU': 1},
}
LOSS = 'training loss at the end'


def config_of(task: str, family: str) -> Path:
    model = FAMILIES[family]
    neck = 'fpn' if family in ('convmlp', 'repmlp') else 'sfp'
    if task == 'classification':
        return CONFIGS / f'classification/{model}_shapes.py'
    if task == 'semantic_fpn':
        return CONFIGS / f'segmentation/{neck}_{model}_shapes.py'
    return CONFIGS / f'detection/{task}_{model}_{neck}_shapes.py'


def metrics_of(work_dir: Path, task: str) -> dict[str, float] | None:
    """What the evaluation at the end of a run measured, by its logs, and the mean loss of the last rows of training."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    rows = [json.loads(row) for log in logs for row in log.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row][-5:]
    if not losses or not rows[-1].keys() >= TASKS[task].keys():
        return None
    metrics = {name: rows[-1][name] * factor for name, factor in TASKS[task].items()}
    return {**metrics, LOSS: statistics.mean(losses)}


def train(task: str, family: str, seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Train once, unless that was done, and return the metrics."""
    pretrained = args.pretrained and task != 'classification'
    work_dir = args.out / f'{task}_{family}{"_pretrained" * pretrained}' / f'seed_{seed}'
    options = [f'randomness.seed={seed}', 'default_hooks.checkpoint.max_keep_ckpts=1', *args.cfg_options]
    if pretrained:
        train('classification', family, seed, args)
        weights = (args.out / f'classification_{family}' / f'seed_{seed}' / 'last_checkpoint').read_text()
        options += ['model.backbone.init_cfg.type=Pretrained', f'model.backbone.init_cfg.checkpoint={weights}']
        if family == 'convmlp':  # whose configs have None there
            options.append('model.backbone.init_cfg._delete_=True')
        else:  # the grid of the classifier; larger images are cut into windows
            options.append('model.backbone.img_size=64')
        if family in ('resmlp', 'gmlp'):
            options.append('model.backbone.cross_window=True')
    finished = work_dir.with_suffix('.finished')  # a run evaluates before its end too
    if not finished.exists():
        command = [sys.executable, str(CONFIGS.parent / 'tools/train.py'), str(config_of(task, family))]
        command += ['--work-dir', str(work_dir), '--cfg-options', *options]
        resume = ['--resume'] if (work_dir / 'last_checkpoint').exists() else []
        print(f'{work_dir} ...', flush=True)
        log = work_dir.with_suffix('.log')
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as file:
            done = subprocess.run([*command, *resume], stdout=file, stderr=subprocess.STDOUT)
        if done.returncode:
            raise UserError(f'the run in {work_dir} failed, see {log}')
    metrics = metrics_of(work_dir, task)
    if metrics is None:
        raise UserError(f'the logs of the run in {work_dir} do not end with an evaluation: remove it and {finished}')
    finished.touch()
    return metrics


def table(results: dict[tuple[str, str], list[dict[str, float]]]) -> str:
    """Mean and standard deviation over the seeds, and the percentage of ConvMLP-S where that was trained too."""
    trained = [task for task in TASKS if any(task == t for t, _ in results)]
    columns = [(task, metric) for task in trained for metric in (*TASKS[task], LOSS)]
    lines = [
        '| | ' + ' | '.join(f'{task}, {metric}' for task, metric in columns) + ' |',
        '|---' * (len(columns) + 1) + '|',
    ]
    for family in FAMILIES:
        cells = []
        for task, metric in columns:
            values, first = ([run[metric] for run in results.get((task, name), [])] for name in (family, 'convmlp'))
            if not values:
                cells.append('')
                continue
            digits, compared = (2, False) if metric == LOSS else (1, first and family != 'convmlp')
            spread = f' ± {statistics.stdev(values):.{digits}f}' if len(values) > 1 else ''
            share = f' ({statistics.mean(values) / statistics.mean(first):.0%})' if compared else ''
            cells.append(f'{statistics.mean(values):.{digits}f}{spread}{share}')
        if any(cells):
            lines.append(f'| {FAMILIES[family]} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/shapes_study'), help='folder of the runs')
    parser.add_argument('--tasks', nargs='+', choices=TASKS, default=list(TASKS))
    parser.add_argument('--families', nargs='+', choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--pretrained', action='store_true', help='start from classifiers trained on the shapes')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for every run')
    args = parser.parse_args()
    check_writable(args.out)
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in args.seeds:  # a table of all families after each seed
        for task in args.tasks:
            for family in args.families:
                results.setdefault((task, family), []).append(train(task, family, seed, args))
        print(table(results), flush=True)


if __name__ == '__main__':
    sys.exit(run_tool(main))
