"""Count the parameters and multiply-adds (MACs) of any of our models, module by module, without a dataset.

One image goes through the model up to the outputs of its heads, before boxes are decoded. A two-stage detector's second
stage is counted for as many regions as its first one hands over at most.
"""

import argparse
import sys

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model', metavar='CONFIG_OR_NAME', help='path of a config, or a name of the zoo')
    parser.add_argument(
        '--shape',
        nargs='+',
        metavar=('HxW', 'W'),
        help='of the image in pixels: 800x1216, 800 1216, or one side, 224 (default: what the model is tested with)',
    )
    parser.add_argument('--depth', type=int, default=2, help='levels of modules in the table (default: 2)')
    parser.add_argument('--deploy', action='store_true', help='count the folded form')
    args = parser.parse_args()
    if args.depth < 0:
        raise UserError(f'--depth must not be negative, got {args.depth}')

    from mlp_backbones import reparameterize
    from mlp_backbones.apis.complexity import count, input_size
    from mlp_backbones.apis.zoo import build_model
    from mlp_backbones.deploy.export import parse_size

    given = parse_size('x'.join(args.shape)) if args.shape else None
    cfg = load_config(args.model)
    shape = given or input_size(cfg)
    model = build_model(cfg)
    if args.deploy:
        model = reparameterize(model, inplace=True)
    counted = count(model, shape)
    rows = [('module', 'params (M)', 'MACs (G)', 'share')]
    for name, (parameters, macs) in counted.items():
        level = name.count('.') + 1 if name else 0
        if level <= args.depth:
            label = '  ' * level + (name.rpartition('.')[2] or type(model).__name__)
            rows.append((label, f'{parameters / 1e6:.3f}', f'{macs / 1e9:.3f}', f'{macs / counted[""][1]:.1%}'))
    widths = [max(map(len, column)) for column in zip(*rows)]
    print(f'\n{args.model}, one image of {shape[0]}x{shape[1]}\n')
    for row in rows:
        print(row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:])), sep='  ')


if __name__ == '__main__':
    sys.exit(run_tool(main))
