"""Train a classifier, a detector or a segmentor; the config decides which."""

import argparse
import sys

from mlp_backbones.engine.launch import build_runner, common_parser, prepare, resume, sole_run_in
from mlp_backbones.utils.cli import check_installed, run_tool


def parse_args() -> argparse.Namespace:
    """Parse the command line; what is one setting of the config becomes one of the ``--cfg-options``."""
    parser = common_parser(__doc__)
    parser.add_argument(
        '--amp',
        nargs='?',
        const='auto',
        choices=['auto', 'float16', 'bfloat16'],
        help='mixed precision: float16, or bfloat16 where the family needs it (ResMLP), unless one is named',
    )
    parser.add_argument('--accumulate', type=int, metavar='N', help='update the weights after every N iterations')
    parser.add_argument('--sync-bn', action='store_true', help='BatchNorm statistics over all GPUs')
    parser.add_argument('--compile', action='store_true', help='torch.compile the backbone')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate from the recipe's batch to this run's"
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help="go on from CHECKPOINT, or from the work dir's newest one",
    )
    parser.add_argument(
        '--strict-data', action='store_true', help='stop at the first file that cannot be read, instead of passing over'
    )
    parser.add_argument('--tensorboard', action='store_true', help='write the curves for TensorBoard too')
    args = parser.parse_args()
    options = dict(args.cfg_options or {})
    if args.accumulate is not None:
        if args.accumulate < 1:
            parser.error(f'--accumulate must be a positive number, got {args.accumulate}')
        options['optim_wrapper.accumulative_counts'] = args.accumulate
    if args.sync_bn:
        options['sync_bn'] = 'torch'
    if args.compile:
        options['default_hooks.compile'] = dict(type='mlp_backbones.CompileHook')
    if args.auto_scale_lr:
        options['auto_scale_lr.enable'] = True
    if args.strict_data:
        options['default_hooks.faulty_files'] = dict(type='mlp_backbones.FaultyFilesHook', max_faulty_files=0)
    args.cfg_options = options
    return args


def main() -> None:
    args = parse_args()
    cfg = prepare(args, train=True, amp=args.amp)
    if args.tensorboard:
        check_installed('--tensorboard', 'tensorboard')
        visualizer = cfg.setdefault('visualizer', dict(type='Visualizer'))
        visualizer.setdefault('vis_backends', []).append(dict(type='TensorboardVisBackend'))
    with sole_run_in(cfg.work_dir):
        runner = build_runner(cfg)
        if args.resume:
            resume(runner, args.resume)
        runner.train()


if __name__ == '__main__':
    sys.exit(run_tool(main))
