"""Export a whole model to one file: from an image as OpenCV reads it to classes, boxes, masks or a label map.

The suffix of OUT decides: .onnx, .xml (OpenVINO) or .pt2 (torch.export). The model is folded first. Normalization,
channel order, padding, decoding and suppression are in the file. How images are resized is in its description, which
mlp_backbones/deploy/runtime.py reads: it runs the file without OpenMMLab and torch. Batch, height and width are
dynamic. Before the file is put in its place it is read again and compared with the model. With --raw it holds what the
backbone and the heads compute from a normalized image, and nothing else.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.cli import check_installed, check_target, config_parser, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_together

NEEDS = {
    '.onnx': ('onnx', 'onnxscript', 'onnxruntime'),
    '.xml': ('onnx', 'onnxscript', 'openvino'),
    '.pt2': (),
}
TOLERANCE = 1e-3  # of the largest value: sums in another order, decoded to pixels


def parse_args() -> argparse.Namespace:
    parser = config_parser(__doc__)
    parser.add_argument(
        'checkpoint',
        help='its weights, file or URL: a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT; '
        "'none' for untrained ones",
    )
    parser.add_argument('out', type=Path, help='file to write, ending in .onnx, .xml or .pt2')
    parser.add_argument('--scores', action='store_true', help="a segmentor's scores too, at the image's size")
    parser.add_argument('--raw', action='store_true', help='what the heads compute, from a normalized image')
    parser.add_argument('--backbone-only', action='store_true', help="the backbone's feature maps; implies --raw")
    parser.add_argument('--size', metavar='HxW', help='with --raw: size of the input (default: 224x224)')
    parser.add_argument('--static', action='store_true', help='with --raw: height and width are those of --size only')
    parser.add_argument('--no-fold', action='store_true', help='export the form that the model was trained in')
    parser.add_argument('--opset', type=int, help="ONNX operator set (default: torch's own)")
    parser.add_argument('--force', action='store_true', help='replace an existing file')
    args = parser.parse_args()
    args.raw = args.raw or args.backbone_only
    if args.out.suffix not in NEEDS:
        raise UserError(f'the file to write must end in {", ".join(NEEDS)}, got {args.out}')
    if args.raw and args.out.suffix == '.xml':
        raise UserError('--raw writes .onnx or .pt2')
    if not args.raw and (args.size or args.static):
        raise UserError('--size and --static are for --raw: a whole model takes any size')
    if args.raw and args.scores:
        raise UserError('--scores is for whole models, and cannot be used with --raw')
    if args.opset and args.out.suffix == '.pt2':
        raise UserError('--opset is for .onnx and .xml files')
    check_target(args.out, args.force)
    check_installed(f'export to {args.out.suffix}', *NEEDS[args.out.suffix])
    return args


def main() -> None:
    args = parse_args()

    import torch

    from mlp_backbones import reparameterize
    from mlp_backbones.apis.inference import load_model
    from mlp_backbones.deploy.export import parse_size
    from mlp_backbones.models.backbones.base import BaseBackbone

    if not hasattr(getattr(torch.export, 'Dim', None), 'AUTO'):
        raise UserError(f'export needs torch 2.6 or later, this is {torch.__version__}')
    if args.size:
        args.size = parse_size(args.size)
    cfg = load_config(args.config, args.cfg_options)
    model, about = load_model(cfg, args.checkpoint)
    model.dataset_meta = about
    if args.scores and not hasattr(model, 'decode_head'):
        raise UserError(f'--scores is for segmentors, and {args.config} is of a {type(model).__name__}')
    if not isinstance(model.backbone, BaseBackbone):
        raise UserError(f'the backbone of {args.config} is {type(model.backbone).__name__}, which is not one of ours')
    if not args.no_fold:
        model = reparameterize(model, inplace=True)
    with written_together(args.out) as partial:  # OpenVINO's weights are a file of their own
        if args.raw:
            export_raw(cfg, model, args, partial)
        else:
            export_whole(cfg, model, args, partial)
    print(f'written: {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB)')


def export_whole(cfg, model, args: argparse.Namespace, partial: Path) -> None:
    """Write a whole model and compare the file with it."""
    import torch

    from mlp_backbones.deploy import graph
    from mlp_backbones.deploy.description import describe
    from mlp_backbones.utils.errors import InvalidValue

    try:
        settings = describe(cfg, model, Path(args.config).stem)
        print(f'tracing {type(model).__name__}: about two minutes', flush=True)
        run = WRITERS[partial.suffix](model, settings, args, partial)
    except InvalidValue as error:
        raise UserError(f'{error}. --raw writes what its heads compute') from error
    rows, columns = settings['step']
    sizes = [(rows, 2 * columns), (3 * rows - 5, 2 * columns - 3)]
    for batch, size in zip((1, 3), [settings['fixed_size']] * 2 if settings['fixed_size'] else sizes):
        for _ in range(3):  # rounding may make NMS drop another box once; a wrong file differs every time
            image = torch.randint(0, 256, (batch, settings['channels'], *size), dtype=torch.uint8)
            worst = graph.difference(run(image), graph.outputs_of(model, settings, image, args.scores))
            print(f'{"x".join(map(str, image.shape))}: largest difference {worst:.1e}')
            if worst <= TOLERANCE:
                break
        else:
            raise UserError(f'the exported file differs by more than {TOLERANCE}; nothing is written')


def write_onnx(model, settings: dict, args: argparse.Namespace, partial: Path):
    """Write ONNX and return a function that runs the file with ONNX Runtime."""
    import onnx

    from mlp_backbones.deploy import graph

    onnx.save(graph.whole_onnx(model, settings, args.scores, args.opset), partial)
    return run_with('onnxruntime', partial)


def write_openvino(model, settings: dict, args: argparse.Namespace, partial: Path):
    """Write OpenVINO's .xml and .bin and return a function that runs the files."""
    import openvino

    from mlp_backbones.deploy.runtime import KEY

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'model.onnx'
        write_onnx(model, settings, args, source)
        converted = openvino.convert_model(source)
        converted.set_rt_info(json.dumps(settings), KEY)
        openvino.save_model(converted, partial, compress_to_fp16=False)
    return run_with('openvino', partial)


def run_with(engine: str, path: Path):
    """Return a function from an image to the outputs of a file, by name, as ``runtime.py`` runs it."""
    import torch

    from mlp_backbones.deploy.runtime import ENGINES

    _, names, run = ENGINES[engine](str(path), None)
    return lambda image: {name: torch.tensor(output) for name, output in zip(names, run(image.numpy()))}


def write_pt2(model, settings: dict, args: argparse.Namespace, partial: Path):
    """Write a torch.export program and return a function that runs the file."""
    import torch

    from mlp_backbones.deploy import graph
    from mlp_backbones.deploy.runtime import KEY

    whole = graph.Whole(model, settings, args.scores)
    program = graph.whole_program(whole, settings)
    torch.export.save(program, partial, extra_files={f'{KEY}.json': json.dumps(settings)})
    module = torch.export.load(partial).module()
    return lambda image: dict(zip(whole.names, module(image)))


WRITERS = {'.onnx': write_onnx, '.xml': write_openvino, '.pt2': write_pt2}


def export_raw(cfg, model, args: argparse.Namespace, partial: Path) -> None:
    """Write what backbone and heads compute and compare the file with the model."""
    import torch

    from mlp_backbones.deploy import graph
    from mlp_backbones.deploy.description import describe
    from mlp_backbones.deploy.export import TensorModel
    from mlp_backbones.deploy.reparameterize import TOLERANCE, relative_difference
    from mlp_backbones.deploy.runtime import KEY

    settings = json.dumps(describe(cfg, model, Path(args.config).stem, raw=True))
    model = model.backbone if args.backbone_only else model
    module = TensorModel(model).eval()
    backbone = model if args.backbone_only else model.backbone
    inputs, dynamic = raw_inputs(backbone, args.size, args.static)
    print(f'tracing {type(model).__name__} at {inputs[0].shape[2]}x{inputs[0].shape[3]}', flush=True)
    graph.make_sizes_symbolic(module)
    program = graph.trace(module, inputs[0], dynamic)
    if partial.suffix == '.onnx':
        import onnx

        made = graph.to_onnx(program, ['image'], module.names(inputs[0][:1]), args.opset)
        made.metadata_props.add(key=KEY, value=settings)
        onnx.save(made, partial)
        run = run_with('onnxruntime', partial)
    else:
        torch.export.save(program, partial, extra_files={f'{KEY}.json': settings})
        run = torch.export.load(partial).module()
    for given in inputs:
        with torch.no_grad():
            difference = relative_difference(run(given), module(given))
        print(f'{"x".join(map(str, given.shape))}: largest difference {difference:.1e} of the largest output')
        if not difference <= TOLERANCE:
            hint = '' if args.static else '. With --static height and width are constants'
            raise UserError(f'the exported file differs by more than {TOLERANCE}; nothing is written{hint}')


def raw_inputs(backbone, size, static: bool):
    """Images to trace and to compare with, and the dimensions that are dynamic."""
    import torch

    from mlp_backbones.deploy.graph import traced_size

    step = backbone.size_step
    size = size or tuple(max(s, 224 // s * s) for s in step or backbone.img_size)
    if static or step is None:
        print('height and width are fixed:', '--static' if static else "token_mixing is 'fixed'")
        sizes, dynamic = [size] * 3, (0,)
    else:
        print('dynamic batch, height and width')
        sizes, dynamic = [traced_size(step), size, [n + 2 * s - 3 for n, s in zip(size, step)]], (0, 2, 3)
    images = [torch.rand(n, backbone.in_channels, *sides) for n, sides in zip((2, 1, 3), sizes)]
    return [image.mul_(4).sub_(2) for image in images], dynamic


if __name__ == '__main__':
    sys.exit(run_tool(main))
