"""Fold a trained classifier, detector or segmentor into its equal and faster deploy form.

OUT.pth (or OUT.safetensors) and, beside it, OUT.py, its config, are written once both forms were found to give the same
outputs: for random input, and for --images if there are any. Detectors are compared up to the outputs of their heads,
before boxes are decoded.
"""

import argparse
import copy
import sys
from pathlib import Path

from mlp_backbones.engine.config import load_config
from mlp_backbones.utils.cli import check_target, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_together


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config that the model was trained with')
    parser.add_argument(
        'checkpoint',
        help='trained weights, file or URL: a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT',
    )
    parser.add_argument('out', type=Path, help='checkpoint to write, ending in .pth or .safetensors')
    parser.add_argument('--images', nargs='+', type=Path, default=[], help='pictures to compare both forms on too')
    parser.add_argument('--size', metavar='HxW', help='of the random input (default: 224x320)')
    parser.add_argument('--force', action='store_true', help='replace files that exist')
    args = parser.parse_args()
    if args.out.suffix not in ('.pth', '.safetensors'):
        raise UserError(f'the file to write must end in .pth or .safetensors, got {args.out}')
    args.config_out = args.out.with_suffix('.py')
    inputs = {Path(p).resolve() for p in (args.config, args.checkpoint)}
    for path in (args.out, args.config_out):
        if path.resolve() in inputs:
            raise UserError(f'{path} is what is read; choose another name to write to')
        check_target(path, args.force)
    return args


def main() -> None:
    args = parse_args()

    import torch

    from mlp_backbones import reparameterize
    from mlp_backbones.apis.zoo import build_model, fill_model
    from mlp_backbones.checkpoints import read_checkpoint, write_checkpoint
    from mlp_backbones.checkpoints.runs import classes_of
    from mlp_backbones.deploy.export import TensorModel, parse_size
    from mlp_backbones.deploy.reparameterize import TOLERANCE, relative_difference
    from mlp_backbones.models.backbones.base import BaseBackbone

    given_size = parse_size(args.size) if args.size else None
    cfg = load_config(args.config)
    content = read_checkpoint(args.checkpoint)
    model = build_model(cfg)
    fill_model(model, content, args.checkpoint, strict=True)
    if not isinstance(model.backbone, BaseBackbone):
        raise UserError(f'the backbone of {args.config} is {type(model.backbone).__name__}, which is not one of ours')
    inputs = inputs_for(model, given_size, args.images)
    deploy_cfg = deploy_config(cfg)
    # What is compared is what the two files will give: built from the new config, filled with the new weights.
    tensors = reparameterize(model).state_dict()
    folded = build_model(deploy_cfg)
    folded.load_state_dict(tensors)
    for name, x in inputs.items():
        with torch.inference_mode():
            difference = relative_difference(TensorModel(folded)(x), TensorModel(model)(x))
        print(f'{name}: largest difference {difference:.1e} of the largest output')
        if not difference <= TOLERANCE:
            raise UserError(f'the folded form differs by {difference:.1e}, more than {TOLERANCE}; nothing is written')

    with written_together(args.out) as partial:
        meta = dict(source=Path(args.checkpoint).name, config=Path(args.config).name, form='deploy')
        write_checkpoint(tensors, partial, meta | classes_of(content))
        deploy_cfg.dump(partial.with_suffix('.py'))
    parameters = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model, folded)]
    print(f'parameters: {parameters[0]:.2f} M -> {parameters[1]:.2f} M\nwritten: {args.out}, {args.config_out}')


def inputs_for(model, size: tuple[int, int] | None, images: list[Path]) -> dict:
    """Return what both forms are compared on: random numbers of a size, and images as the model gets them."""
    import torch

    from mlp_backbones.datasets.validation.files import read_image

    size = size or ((224, 320) if model.backbone.size_step else model.backbone.img_size)
    x = torch.rand(2, model.backbone.in_channels, *size).mul_(4).sub_(2)
    inputs = {f'random input of {size[0]}x{size[1]}': x}
    for path in images:
        pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
        inputs[str(path)] = model.data_preprocessor(dict(inputs=[pixels]))['inputs']
    return inputs


def deploy_config(cfg):
    """Return a copy of a config whose model is in deploy form and loads no weights."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from = None
    cfg.model.backbone.update(deploy=True, init_cfg=None)
    necks = cfg.model.get('neck') or []
    for neck in necks if isinstance(necks, (list, tuple)) else [necks]:
        if getattr(neck['type'], '__name__', str(neck['type'])).endswith('SimpleFeaturePyramid'):
            neck['deploy'] = True
    return cfg


if __name__ == '__main__':
    sys.exit(run_tool(main))
