"""Draw the synthetic shapes set in the format of COCO, ADE20K or ImageNet."""

import argparse
import sys

from mlp_backbones.datasets import TASKS, make_shapes
from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', help='folder to make; it must not be there yet')
    parser.add_argument(
        '--task',
        choices=list(TASKS),
        default='detection',
        help="boxes and masks in COCO's format, label maps in ADE20K's, folders in ImageNet's (default: detection)",
    )
    parser.add_argument('--num-train', type=int, help="training images (default: the task's own number)")
    parser.add_argument('--num-val', type=int, help="validation images (default: the task's own number)")
    parser.add_argument('--seed', type=int, default=0, help='another draws other images (default: 0)')
    args = parser.parse_args()
    try:
        make_shapes(args.root, args.task, args.num_train, args.num_val, args.seed)
    except OSError as error:
        raise UserError(str(error)) from error


if __name__ == '__main__':
    sys.exit(run_tool(main))
