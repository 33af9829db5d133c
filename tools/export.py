"""Export a backbone, classifier, segmentor or detector to ONNX or to a torch.export program.

The suffix of OUT decides: .onnx or .pt2. The model is folded first. The batch is dynamic, and height and width are
where the backbone's mode allows, in steps that the tool prints. Before the file is put in its place it is read again
and compared with the model, at two batches and two sizes. A detector is exported up to what its heads answer, before
boxes are decoded; a two-stage one up to its feature maps and its region proposals.
"""

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path

from mlp_backbones.launch import UserError, check_target, load_model_config, run_tool

ONNX = ('onnx', 'onnxscript', 'onnxruntime')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the model')
    parser.add_argument(
        'checkpoint',
        help='its weights, file or URL: a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT; '
        "'none' for untrained ones",
    )
    parser.add_argument('out', type=Path, help='file to write, ending in .onnx or .pt2')
    parser.add_argument('--backbone-only', action='store_true', help="the backbone's feature maps")
    parser.add_argument('--size', metavar='HxW', help='of the input (default: of the token grid, or 224x224)')
    parser.add_argument('--static', action='store_true', help='height and width are those of --size only')
    parser.add_argument('--no-fold', action='store_true', help='export the form that the model was trained in')
    parser.add_argument('--opset', type=int, help="ONNX operator set (default: torch's own)")
    parser.add_argument('--force', action='store_true', help='replace a file that is there already')
    args = parser.parse_args()
    if args.out.suffix not in ('.onnx', '.pt2'):
        raise UserError(f'the file to write must end in .onnx or .pt2, got {args.out}')
    if args.out.exists() and not args.force:
        raise UserError(f'{args.out} is there already; --force replaces it')
    check_target(args.out)
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if args.out.suffix == '.onnx' and missing:
        raise UserError(f'export to ONNX needs {", ".join(missing)}: pip install {" ".join(ONNX)}')

    import torch

    from mlp_backbones import ConvMLP, reparameterize
    from mlp_backbones.backbones.base import BaseBackbone
    from mlp_backbones.deployment import TOLERANCE, TensorModel, parse_size, relative_difference
    from mlp_backbones.zoo import build_model

    given_size = parse_size(args.size) if args.size else None
    if not hasattr(getattr(torch.export, 'Dim', None), 'AUTO'):
        raise UserError(f'export needs torch 2.6 or later, this is {torch.__version__}')
    cfg = load_model_config(args.config)
    cfg.model.backbone.init_cfg = None
    model = build_model(cfg, None if args.checkpoint == 'none' else args.checkpoint, strict=True)
    if not isinstance(model.backbone, BaseBackbone):
        raise UserError(f'the backbone of {args.config} is {type(model.backbone).__name__}, which is none of ours')
    if not args.no_fold:
        model = reparameterize(model, inplace=True)
    model = model.backbone if args.backbone_only else model
    backbone = model if args.backbone_only else model.backbone
    step = backbone.size_step
    size = given_size or tuple(max(s, 224 // s * s) for s in step or backbone.img_size)
    dynamic, reason = True, ''
    if args.static:
        dynamic, reason = False, '--static'
    elif step is None:
        dynamic, reason = False, "token_mixing is 'fixed'"
    elif any(n % s for n, s in zip(size, step)):
        dynamic, reason = False, f'{size[0]}x{size[1]} is no multiple of {step[0]}x{step[1]}'
    elif args.out.suffix == '.pt2' and not isinstance(backbone, ConvMLP):
        dynamic, reason = False, 'torch.export would refuse images of a single window; ONNX takes them'
    if not dynamic:
        print(f'height and width are fixed: {reason}')

    module = TensorModel(model).eval()
    channels = backbone.in_channels
    x = torch.rand(2, channels, *size).mul_(4).sub_(2)
    inputs = [x[:1], torch.rand(3, channels, *size)]
    shapes = {0: torch.export.Dim('batch', min=1, max=4096)}
    if dynamic:
        # Two steps at least while it is traced: what is 1 would be taken for a constant.
        x = torch.rand(2, channels, *(max(2 * s, n) for n, s in zip(size, step)))
        names = ('height', 'width')
        for axis, (name, n) in enumerate(zip(names, step), 2):
            shapes[axis] = n * torch.export.Dim(f'{name}_steps', min=1, max=max(2, 8192 // n))
        inputs.append(torch.rand(2, channels, *(n + 2 * s for n, s in zip(size, step))))
        print(f'dynamic batch; height in steps of {step[0]}, width in steps of {step[1]}')
    print(f'tracing {type(model).__name__} at {x.shape[2]}x{x.shape[3]}', flush=True)
    make_sizes_symbolic(module)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.export.export(module, (x,), dynamic_shapes=(shapes,), strict=False)
        with tempfile.TemporaryDirectory(prefix=f'.{args.out.stem}-', dir=args.out.parent) as folder:
            partial = Path(folder) / args.out.name
            run = (
                write_onnx(program, partial, args.opset) if args.out.suffix == '.onnx' else write_pt2(program, partial)
            )
            for given in inputs:
                difference = relative_difference(run(given), module(given))
                shape = 'x'.join(map(str, given.shape))
                print(f'{shape}: largest difference {difference:.1e} of the largest answer')
                if not difference <= TOLERANCE:
                    raise UserError(
                        f'the exported file differs by more than {TOLERANCE}; nothing is written'
                        + ('. With --static height and width are constants' if dynamic else '')
                    )
            os.replace(partial, args.out)
    print(f'written: {args.out} ({args.out.stat().st_size / 2**20:.1f} MiB)')


def make_sizes_symbolic(module) -> None:
    """Replace mmseg's Upsample, which turns sizes into constants, by torch's own, which does the same."""
    import torch

    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg') and not child.size:
                same = torch.nn.Upsample(None, child.scale_factor, child.mode, child.align_corners)
                setattr(parent, name, same)


def write_onnx(program, path: Path, opset: int | None):
    """Write ONNX and return a function that runs the file with ONNX Runtime."""
    import onnxruntime
    import torch

    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):
        onnx_program = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
    written = onnx_program.model.opset_imports['']
    if opset is not None and written != opset:
        raise UserError(f'torch {torch.__version__} writes operator set {written}, not {opset}')
    onnx_program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    (name,) = (i.name for i in session.get_inputs())
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {name: x.numpy()})]


def write_pt2(program, path: Path):
    """Write a torch.export program and return the module that is read from it."""
    import torch

    torch.export.save(program, path)
    return torch.export.load(path).module()


if __name__ == '__main__':
    sys.exit(run_tool(main))
