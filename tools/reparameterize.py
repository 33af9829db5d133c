"""Fold a trained classifier, detector or segmentor into its equal and faster deploy form.

OUT.pth and, beside it, OUT.py, its config, are written when both forms were found to answer the same. Both forms get
random input, and --images if there are any; detectors are compared up to what their heads answer, before boxes are
decoded.
"""

import argparse
import copy
import os
import sys
import tempfile
from pathlib import Path

from mlp_backbones.launch import UserError, check_target, load_model_config, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config that the model was trained with')
    parser.add_argument(
        'checkpoint',
        help='trained weights, file or URL: a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT',
    )
    parser.add_argument('out', type=Path, help='checkpoint to write, ending in .pth')
    parser.add_argument('--images', nargs='+', type=Path, default=[], help='pictures to compare both forms on too')
    parser.add_argument('--size', metavar='HxW', help='of the random input (default: 224x320)')
    parser.add_argument('--force', action='store_true', help='replace files that are there already')
    args = parser.parse_args()
    config_out = args.out.with_suffix('.py')
    if args.out.suffix != '.pth':
        raise UserError(f'the file to write must end in .pth, got {args.out}')
    inputs = {Path(p).resolve() for p in (args.config, args.checkpoint)}
    for path in (args.out, config_out):
        if path.resolve() in inputs:
            raise UserError(f'{path} is what is read; choose another name to write to')
        check_target(path)
    there = [str(p) for p in (args.out, config_out) if p.exists()]
    if there and not args.force:
        raise UserError(f'{" and ".join(there)} there already; --force replaces')

    import torch

    from mlp_backbones import reparameterize
    from mlp_backbones.backbones.base import BaseBackbone
    from mlp_backbones.checkpoints import write_checkpoint
    from mlp_backbones.deployment import TOLERANCE, TensorModel, parse_size, read_image, relative_difference
    from mlp_backbones.zoo import build_model

    given_size = parse_size(args.size) if args.size else None
    cfg = load_model_config(args.config)
    model = build_model(cfg, args.checkpoint, strict=True)
    if not isinstance(model.backbone, BaseBackbone):
        raise UserError(f'the backbone of {args.config} is {type(model.backbone).__name__}, which is none of ours')
    size = given_size or ((224, 320) if model.backbone.size_step else model.backbone.img_size)
    x = torch.rand(2, model.backbone.in_channels, *size).mul_(4).sub_(2)
    inputs = {f'random input of {size[0]}x{size[1]}': x}
    for path in args.images:
        inputs[str(path)] = read_image(model, path)

    deploy_cfg = copy.deepcopy(cfg)
    deploy_cfg.load_from = None
    deploy_cfg.model.backbone.update(deploy=True, init_cfg=None)
    necks = deploy_cfg.model.get('neck') or []
    for neck in necks if isinstance(necks, (list, tuple)) else [necks]:
        if getattr(neck['type'], '__name__', str(neck['type'])).endswith('SimpleFeaturePyramid'):
            neck['deploy'] = True
    # What is compared is what the two files will give: built from the new config, filled with the new weights.
    tensors = reparameterize(model).state_dict()
    folded = build_model(deploy_cfg)
    folded.load_state_dict(tensors)
    for name, x in inputs.items():
        with torch.inference_mode():
            difference = relative_difference(TensorModel(folded)(x), TensorModel(model)(x))
        print(f'{name}: largest difference {difference:.1e} of the largest answer')
        if not difference <= TOLERANCE:
            raise UserError(f'the folded form differs by {difference:.1e}, more than {TOLERANCE}; nothing is written')

    with tempfile.TemporaryDirectory(prefix=f'.{args.out.stem}-', dir=args.out.parent) as folder:
        meta = dict(source=Path(args.checkpoint).name, config=Path(args.config).name, form='deploy')
        partial = write_checkpoint(tensors, Path(folder) / 'checkpoint.pth', meta)
        deploy_cfg.dump(Path(folder) / 'config.py')
        os.replace(partial, args.out)
        os.replace(Path(folder) / 'config.py', config_out)
    parameters = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model, folded)]
    print(f'parameters: {parameters[0]:.2f} M -> {parameters[1]:.2f} M\nwritten: {args.out}, {config_out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
