"""Quantize a model of tools/export.py to int8, and keep its accuracy.

The file is calibrated on training images of CONFIG, resized as the file says, and judged by CONFIG's own evaluator on
its validation images. Where int8 loses more than --max-drop, the layers that lose most return to float, until it is
kept. OUT is OpenVINO's .xml or .onnx, and runs as the file does; a report is written beside it, as .json.
"""

import argparse
import json
import logging
import sys
from pathlib import Path

from mlp_backbones.utils.cli import check_installed, check_target, config_parser, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_together

NEEDS = {'.xml': ('nncf', 'openvino'), '.onnx': ('nncf', 'onnx', 'onnxruntime')}


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument('model', type=Path, help='.onnx or .xml file that tools/export.py wrote')
    parser.add_argument('out', type=Path, help='file to write, ending in .xml (OpenVINO) or .onnx')
    parser.add_argument(
        '--max-drop',
        type=float,
        default=0.01,
        help='how much of top-1, mAP or mIoU may be lost, from 0 to 1 (default: 0.01, one point)',
    )
    parser.add_argument('--images', type=int, default=300, help='training images to calibrate on (default: 300)')
    parser.add_argument('--force', action='store_true', help='replace existing files')
    args = parser.parse_args()
    if args.out.suffix not in NEEDS:
        raise UserError(f'the file to write must end in {" or ".join(NEEDS)}, got {args.out}')
    if args.model.suffix == '.xml' and args.out.suffix == '.onnx':
        raise UserError(f'an .onnx file is made of an .onnx file, got {args.model}')
    if not 0 <= args.max_drop <= 1:
        raise UserError(f'--max-drop must be from 0 to 1, got {args.max_drop}')
    if args.images < 1:
        raise UserError(f'--images must be positive, got {args.images}')
    if args.out.resolve() == args.model.resolve():
        raise UserError(f'{args.out} is the file to quantize itself: name another')
    for path in (args.out, args.out.with_suffix('.json')):
        check_target(path, args.force)
    check_installed(f'int8 in {args.out.suffix}', *NEEDS[args.out.suffix])
    return args


def main() -> None:
    args = parse_args()

    import nncf

    from mlp_backbones.deploy.evaluate import Evaluation, calibration_images, open_runtime
    from mlp_backbones.deploy.quantize import ENGINES, Quantizer, quantize

    nncf.set_log_level(logging.ERROR)
    about = open_runtime(args.model, ENGINES[args.out.suffix]).about
    cfg = load_data_config(args.config, args.cfg_options)
    evaluation = Evaluation(cfg, 'val')
    evaluation.check(about, args.model)
    images = calibration_images(cfg, args.images)
    print(f'{len(images)} images to calibrate on, {len(evaluation)} to judge by', flush=True)
    quantizer = Quantizer(args.model, args.out.suffix, images, evaluation, args.max_drop)
    with written_together(args.out) as partial:
        report = dict(model=str(args.model), config=str(args.config), **quantize(quantizer, partial))
        partial.with_suffix('.json').write_text(json.dumps(report, indent=1))
    print_report(report)
    print(f'written: {args.out} ({args.out.with_suffix(".json").name} beside it)')


def load_data_config(path: str, options: dict | None):
    """Read a config whose training and validation data exist; shapes are drawn."""
    from mlp_backbones.engine.config import load_config, report
    from mlp_backbones.engine.data import adapt_to_data
    from mlp_backbones.engine.preflight import missing_data

    cfg = load_config(path, options)
    adapt_to_data(cfg)
    report(missing_data(cfg, train=True))
    return cfg


def print_report(report: dict) -> None:
    """Print what was gained and lost."""
    print(f'\n| {"":20} | {"float":>10} | {"int8":>10} |\n|{"-" * 22}|{"-" * 12}|{"-" * 12}|')
    for name, before in report['metrics']['before'].items():
        print(f'| {name:20} | {before:10.4f} | {report["metrics"]["after"][name]:10.4f} |')
    for name, values in (('ms an image', report['milliseconds']), ('MiB', report['mebibytes'])):
        print(f'| {name:20} | {values["before"]:10.2f} | {values["after"]:10.2f} |')
    layers = report['layers']
    print(f'\n{layers["int8"]} layers in int8, {len(layers["float"])} in float')
    for layer in layers['float']:
        print(f'  {layer["name"]}: {layer["reason"]}')
    print(f'{report["around"]["reason"]}: {len(report["around"]["names"])} operations in float\n')


if __name__ == '__main__':
    sys.exit(run_tool(main))
