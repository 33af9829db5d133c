"""Evaluate a classifier, a detector or a segmentor; the config decides which."""

import argparse
import copy
import os
import sys

from mlp_backbones.engine.launch import build_runner, common_parser, load_whole, prepare
from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.config import dataset_nodes, nodes
from mlp_backbones.utils.errors import UserError


def main() -> None:
    parser = common_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file or URL, or a .onnx or .xml file of tools/export.py')
    parser.add_argument(
        '--out', help='file for the predictions, ending in .pkl; for segmentation a folder of index PNGs'
    )
    parser.add_argument('--show-dir', help='folder for pictures of the predictions beside the ground truth')
    parser.add_argument(
        '--tta', action='store_true', help="test-time augmentation, by the config's tta_model and tta_pipeline"
    )
    args = parser.parse_args()
    if args.checkpoint.endswith(('.onnx', '.xml')):
        return test_file(args)
    cfg = prepare(args, train=False)
    if args.tta:
        augment(cfg, args.config)
    if args.out:
        save_predictions(cfg, os.path.abspath(args.out), parser)
    if args.show_dir:
        draw_predictions(cfg, os.path.abspath(args.show_dir))
    runner = build_runner(cfg)
    load_whole(runner, args.checkpoint)
    runner.test()


def test_file(args: argparse.Namespace) -> None:
    """Evaluate an exported file with the config's evaluator, in ONNX Runtime or OpenVINO."""
    from mlp_backbones.deploy.evaluate import Evaluation, open_runtime

    if args.out or args.show_dir or args.tta:
        raise UserError(f'--out, --show-dir and --tta cannot be used with an exported file such as {args.checkpoint}')
    model = open_runtime(args.checkpoint)
    evaluation = Evaluation(prepare(args, train=False))
    evaluation.check(model.about, args.checkpoint)
    for name, value in evaluation.score(model, progress=True).items():
        print(f'{name}: {value:.4f}' if isinstance(value, float) else f'{name}: {value}')


def augment(cfg, path: str) -> None:
    """Put ``tta_model`` around the model and ``tta_pipeline`` into the datasets, as the frameworks' own tools do.

    Raises:
        UserError: The config has none, or its model predicts what cannot be merged.
    """
    tests = list(dataset_nodes(cfg.test_dataloader.dataset))
    if cfg.default_scope == 'mmpretrain' and tests and not cfg.get('tta_pipeline'):
        *steps, last = copy.deepcopy(tests[0]['pipeline'])
        flips = [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)]
        cfg.tta_pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [last]])]
    for key in ('tta_model', 'tta_pipeline'):
        if not cfg.get(key):
            raise UserError(f'--tta: {path} has no {key}; see "Test-time augmentation" in docs/training.md')
    if 'DetTTAModel' in str(cfg.tta_model.get('type')) and any(node.get('mask_head') for node in nodes(cfg.model)):
        raise UserError(
            f"--tta: the model of {path} predicts masks, and mmdet's DetTTAModel merges boxes only: test without --tta"
        )
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    for node in tests:
        node['pipeline'] = cfg.tta_pipeline


def save_predictions(cfg, out: str, parser) -> None:
    """Make the evaluators of the config's framework write what was predicted."""
    evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    if cfg.default_scope == 'mmseg':
        for evaluator in evaluators:
            evaluator.update(output_dir=out, keep_results=True)
        return
    if not out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out must end in .pkl or .pickle, got {out}')
    os.makedirs(os.path.dirname(out), exist_ok=True)
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
