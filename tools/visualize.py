"""See what models do: one figure of one or several of them, each in a row.

  features  feature maps on the way through the backbone: edges and textures early, parts later
  cam       class activation maps of classifiers: where the evidence for a class is
  mixing    token mixing of ResMLP and gMLP as spatial kernels
  erf       effective receptive field: which pixels the centre of a feature map depends on

A model is a name of the zoo, whose published weights are taken, or the path of a config, whose weights are random
unless --weights gives others; the figure says so.
"""

import argparse
import sys
from pathlib import Path

from mlp_backbones.launch import UserError, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, function in (('features', features), ('cam', cam), ('mixing', mixing), ('erf', erf)):
        command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.set_defaults(run=function)
        if name in ('features', 'cam'):
            command.add_argument('image', type=Path, help='picture to look at')
        command.add_argument(
            '--model',
            nargs='+',
            required=True,
            metavar='NAME_OR_CONFIG',
            help='names of the zoo (docs/model_zoo.md) or paths of configs; each is a row of the figure',
        )
        command.add_argument(
            '--weights',
            nargs='+',
            metavar='FILE_OR_URL',
            help='one for each model: a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT, or '
            "'none' for random weights (default: those of the zoo; random ones for a config)",
        )
        command.add_argument('--names', nargs='+', metavar='NAME', help='what the figure calls the models')
        command.add_argument('--out', type=Path, required=True, help='figure to write, .png, .svg or .pdf')
        if name != 'mixing':
            command.add_argument(
                '--size',
                metavar='HxW',
                help="of the input, such as 448 or 800x1216 (default: that of the model's tests)",
            )
        if name == 'features':
            command.add_argument('--channels', type=int, default=9, help='channels of each map (default: 9)')
        if name == 'cam':
            command.add_argument('--top', type=int, default=3, help='so many of the likeliest classes (default: 3)')
            command.add_argument('--classes', nargs='+', metavar='CLASS', help='these instead, by name or number')
        if name == 'mixing':
            command.add_argument('--blocks', type=int, default=6, help='how many, evenly spaced (default: 6)')
        if name == 'erf':
            command.add_argument('--images', type=Path, help='image or folder to average over (default: noise)')
            command.add_argument('--num', type=int, default=8, help='inputs to average over (default: 8)')
    args = parser.parse_args()

    from mlp_backbones.visualization import check_figure

    check_figure(args.out)
    for option in ('weights', 'names'):
        given = getattr(args, option)
        if given and len(given) != len(args.model):
            raise UserError(f'--{option}: {len(given)} for {len(args.model)} models')
    for option in ('channels', 'top', 'blocks', 'num'):
        if getattr(args, option, 1) < 1:
            raise UserError(f'--{option} must be positive, got {getattr(args, option)}')
    args.run(args)
    print(f'written: {args.out}')


def models(args) -> dict:
    """What the figure calls a model -> its predictor."""
    from mlp_backbones.inference import Predictor
    from mlp_backbones.visualization import is_ours

    found = {}
    for i, name in enumerate(args.model):
        weights = args.weights[i] if args.weights else 'none' if name.endswith('.py') else None
        predictor = Predictor.build(name, weights, whole=args.command == 'cam')
        label = args.names[i] if args.names else Path(name).stem
        if weights == 'none':
            print(f'{name}: random weights')
            label += ' (random weights)'
        found[label if label not in found else f'{label} ({i + 1})'] = predictor
        is_ours(predictor.model, name)
    return found


def size_of(args):
    from mlp_backbones.deployment import parse_size

    return parse_size(args.size) if args.size else None


def read(path: Path):
    import cv2

    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise UserError(f'{path} is {"no image that can be read" if path.exists() else "not there"}')
    return image


def features(args) -> None:
    """Feature maps on the way through the backbone."""
    import torch

    from mlp_backbones.visualization import gallery, mosaic, stage_maps, telling_channels

    image, size = read(args.image), size_of(args)
    rows = {}
    for label, predictor in models(args).items():
        with torch.no_grad():
            x = predictor.inputs(image, size)
            maps = stage_maps(predictor.model.backbone, x)
        cells = [dict(title=f'input, {x.shape[2]}x{x.shape[3]}', image=predictor.seen(x))]
        for title, value in maps.items():
            picked = mosaic(telling_channels(value[0], args.channels), x.shape[2:])
            cells.append(dict(title=title, image=picked, cmap='viridis'))
        rows[label] = cells
    gallery(args.out, rows)


def cam(args) -> None:
    """Class activation maps of classifiers, by Grad-CAM on the last feature map."""
    import torch

    from mlp_backbones.inference import Classifier
    from mlp_backbones.visualization import class_activation, gallery

    image, size = read(args.image), size_of(args)
    rows = {}
    for label, predictor in models(args).items():
        if not isinstance(predictor, Classifier):
            raise UserError(f'cam takes classifiers, and {label} is a {type(predictor.model).__name__}')
        x = predictor.inputs(image, size)
        if args.classes:
            labels = [class_number(c, predictor.classes) for c in args.classes]
        else:
            with torch.no_grad():
                scores = predictor.model(x, mode='tensor')[0]
            labels = scores.topk(min(args.top, len(scores))).indices.tolist()
        maps, scores = class_activation(predictor.model, x, labels)
        seen = predictor.seen(x)
        cells = [dict(title=f'input, {x.shape[2]}x{x.shape[3]}', image=seen)]
        for number, value in zip(labels, maps):
            name = predictor.classes[number].split(',')[0]
            cells.append(dict(title=f'{name}  {scores[number]:.2f}', image=seen, overlay=value))
        rows[label] = cells
    gallery(args.out, rows)


def class_number(text: str, classes: list[str]) -> int:
    import difflib

    for i, names in enumerate(classes):
        if text == names or text in names.split(', '):  # ImageNet's classes have several
            return i
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    singly = [name for names in classes for name in names.split(', ')]
    close = difflib.get_close_matches(text, singly, 3, 0.4) or singly[:5]
    raise UserError(
        f'there is no class {text!r}; there is {", ".join(map(repr, close))} and others, {len(classes)} in all, '
        f'or a number from 0 to {len(classes) - 1}'
    )


def mixing(args) -> None:
    """Token mixing of ResMLP and gMLP as spatial kernels: each small image is the weights of one token."""
    from mlp_backbones.visualization import gallery, kernel_mosaic, token_kernels

    rows = {}
    for label, predictor in models(args).items():
        kernels = token_kernels(predictor.model.backbone)
        chosen = sorted({(len(kernels) - 1) * i // max(args.blocks - 1, 1) for i in range(args.blocks)})
        rows[label] = [
            dict(title=f'block {i + 1}', image=kernel_mosaic(kernels[i]), cmap='RdBu_r', diverging=True) for i in chosen
        ]
    gallery(args.out, rows, side=2.7)


def erf(args) -> None:
    """Effective receptive field: the gradient of the centre of each stage's map, averaged over inputs."""
    import torch

    from mlp_backbones.complexity import input_size
    from mlp_backbones.inference import list_pictures, read_pictures
    from mlp_backbones.visualization import gallery, receptive_fields, side_of

    size = size_of(args)
    images = []
    if args.images:
        pictures = read_pictures(list_pictures(args.images))
        images = [p.image for p, _ in zip((p for p in pictures if p.image is not None), range(args.num))]
    rows = {}
    for label, predictor in models(args).items():
        own = size or input_size(predictor.cfg)
        if images:
            inputs = [predictor.inputs(image, own) for image in images]
        else:
            generator = torch.Generator().manual_seed(0)
            inputs = [torch.randn(1, 3, *own, generator=generator) for _ in range(args.num)]
        rows[label] = [
            dict(title=title, image=field**0.3, cmap='magma', note=f'half of it within {side_of(field, 0.5)} px')
            for title, field in receptive_fields(predictor.model.backbone, inputs).items()
        ]
    gallery(args.out, rows)


if __name__ == '__main__':
    sys.exit(run_tool(main))
