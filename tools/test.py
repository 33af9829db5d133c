"""Evaluate a classifier, a detector or a segmentor; the config decides which."""

import os
import sys

from mlp_backbones.launch import build_runner, check_filled, common_parser, prepare, run_tool


def main() -> None:
    parser = common_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument(
        '--out', help='file for the predictions, ending in .pkl; for segmentation a folder of index PNGs'
    )
    parser.add_argument('--show-dir', help='folder for pictures of the predictions beside the ground truth')
    args = parser.parse_args()
    args.cfg_options = {**(args.cfg_options or {}), 'load_from': args.checkpoint}
    cfg = prepare(args, train=False)
    if args.out:
        save_predictions(cfg, os.path.abspath(args.out), parser)
    if args.show_dir:
        draw_predictions(cfg, os.path.abspath(args.show_dir))
    runner = build_runner(cfg)
    check_filled(runner, args.checkpoint)
    runner.test()


def save_predictions(cfg, out: str, parser) -> None:
    """Make the evaluators of the config's framework write what was predicted."""
    if cfg.default_scope == 'mmseg':
        cfg.test_evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {out}')
    os.makedirs(os.path.dirname(out), exist_ok=True)
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
    cfg.test_evaluator = [*evaluators, dict(type=dump, out_file_path=out)]


def draw_predictions(cfg, folder: str) -> None:
    """Switch the framework's visualization hook on."""
    hook = cfg.default_hooks.setdefault('visualization', {})
    if cfg.default_scope == 'mmpretrain':
        hook.update(type='VisualizationHook', enable=True, interval=1, out_dir=folder)
    elif cfg.default_scope == 'mmdet':
        hook.update(type='DetVisualizationHook', draw=True, test_out_dir=folder)
    else:
        hook.update(type='SegVisualizationHook', draw=True, interval=1)
        cfg.visualizer.save_dir = folder


if __name__ == '__main__':
    sys.exit(run_tool(main))
