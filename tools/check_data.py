"""Look at every image, label map and annotation file of a config before training, and try its pipelines.

What is wrong is printed, a line for each file or kind of problem. Errors would stop a run, be passed over, or teach
something wrong; warnings are what the frameworks leave out by themselves. A pipeline is run on a few images of each
dataset. The exit status is 1 where there is an error.
"""

import json
import os
import sys
from itertools import chain
from pathlib import Path

from mlp_backbones.engine.config import load_config, report
from mlp_backbones.engine.data import adapt_to_data, datasets_of
from mlp_backbones.engine.preflight import missing_data
from mlp_backbones.utils.cli import check_target, config_parser, run_tool
from mlp_backbones.utils.errors import UserError

SHOWN = 50  # lines


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument('--out', type=Path, help='file for the whole list: JSON if it ends in .json, otherwise text')
    parser.add_argument('--workers', type=int, help='threads that decode images (default: one for each core)')
    args = parser.parse_args()
    if args.workers is not None and args.workers < 0:
        raise UserError(f'--workers must be 0 or more, got {args.workers}')
    if args.out:
        check_target(args.out)
    cfg = load_config(args.config, args.cfg_options)
    adapt_to_data(cfg)
    datasets = []
    for train in (True, False):
        report(missing_data(cfg, train))
        datasets += [(loader.split('_')[0], node) for loader, node in datasets_of(cfg, train)]

    from rich.console import Console
    from rich.progress import track

    from mlp_backbones.datasets.validation.scan import read_sources
    from mlp_backbones.utils.files import written_whole

    console = Console(stderr=True)
    workers = args.workers if args.workers is not None else os.cpu_count() or 1
    problems, images = [], []
    for source in read_sources(cfg, datasets):
        number = len(source.dataset)
        found = source.scan(max(workers, 1))
        for file, problem in chain(*track(found, f'{source.split}: {number} images', number, console=console)):
            source.add(file, problem)
        problems += source.problems
        images.append(f'{source.split} {number}')

    for p in problems[:SHOWN]:
        print(f'{p.level:8}{p.split:6}{p.file}: {p.problem}')
    if len(problems) > SHOWN:
        print(f'... and {len(problems) - SHOWN} more' + ('' if args.out else '; --out FILE has them all'))
    if args.out:
        text = ''.join('\t'.join(p) + '\n' for p in problems)
        if args.out.suffix == '.json':
            text = json.dumps([p._asdict() for p in problems], indent=1)
        with written_whole(args.out) as partial:
            partial.write_text(text)
    errors = sum(p.level == 'error' for p in problems)
    print(f'{errors} errors, {len(problems) - errors} warnings; images looked at: {", ".join(images)}')
    if errors:
        raise UserError(f'{errors} problems in the data of {args.config}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
