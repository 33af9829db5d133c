"""See what models do: one figure of one or several of them, each in a row.

  features  feature maps on the way through the backbone: edges and textures early, parts later
  cam       class activation maps of classifiers: where the evidence for a class is
  mixing    token mixing of ResMLP and gMLP as spatial kernels
  erf       effective receptive field: which pixels the center of a feature map depends on

A model is a name of the zoo, whose published weights are taken, or the path of a config, whose weights are random
unless --weights gives others; the figure says so.
"""

import argparse
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from mlp_backbones.datasets.validation.files import read_image
from mlp_backbones.utils.cli import run_tool
from mlp_backbones.utils.errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for function in (features, cam, mixing, erf):
        name = function.__name__
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
            size = "of the input, such as 448 or 800x1216 (default: that of the model's tests)"
            command.add_argument('--size', metavar='HxW', help=size)
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
    for option in ('weights', 'names'):
        given = getattr(args, option)
        if given and len(given) != len(args.model):
            raise UserError(f'--{option}: {len(given)} for {len(args.model)} models')
    for option in ('channels', 'top', 'blocks', 'num'):
        if getattr(args, option, 1) < 1:
            raise UserError(f'--{option} must be positive, got {getattr(args, option)}')
    return args


def models(args) -> dict:
    """What the figure calls a model -> its predictor."""
    from mlp_backbones.apis.inference import Predictor
    from mlp_backbones.models.backbones.base import BaseBackbone

    found = {}
    for i, name in enumerate(args.model):
        weights = args.weights[i] if args.weights else 'none' if name.endswith('.py') else None
        predictor = Predictor.build(name, weights, device='cpu', whole=args.command == 'cam')
        if not isinstance(predictor.model.backbone, BaseBackbone):
            raise UserError(f'the backbone of {name} is {type(predictor.model.backbone).__name__}, which is not ours')
        label = args.names[i] if args.names else Path(name).stem
        if weights == 'none':
            print(f'{name}: random weights')
            label += ' (random weights)'
        found[label if label not in found else f'{label} ({i + 1})'] = predictor
    return found


def size_of(args) -> tuple[int, int] | None:
    from mlp_backbones.deploy.export import parse_size

    return parse_size(args.size) if args.size else None


def shown(args) -> Iterator[tuple]:
    """Yield what the figure calls a model, its predictor, and the picture as the model gets it."""
    from mlp_backbones.apis.images import flags_of

    size = size_of(args)
    read_image(args.image)  # whether it can be, before models are fetched
    for label, predictor in models(args).items():
        image = read_image(args.image, flags_of(predictor.about['channels']))
        yield label, predictor, predictor.inputs(image, size)


def features(args) -> dict:
    """Feature maps on the way through the backbone."""
    import torch

    from mlp_backbones.visualization.explain import enlarged, stage_maps, telling_channels
    from mlp_backbones.visualization.figures import mosaic

    rows = {}
    for label, predictor, x in shown(args):
        with torch.no_grad():
            maps = stage_maps(predictor.model.backbone, x)
        rows[label] = [dict(title=f'input, {x.shape[2]}x{x.shape[3]}', image=predictor.seen(x))]
        for title, (value, stride) in maps.items():
            picked = enlarged(telling_channels(value[0], args.channels), stride, x.shape[2:], 'nearest')
            rows[label].append(dict(title=title, image=mosaic(picked), vmin=0, vmax=1))
    return rows


def cam(args) -> dict:
    """Class activation maps of classifiers, by Grad-CAM on the last feature map."""
    import torch

    from mlp_backbones.visualization.explain import class_activation

    rows = {}
    for label, predictor, x in shown(args):
        if predictor.about['task'] != 'classification':
            raise UserError(f'cam takes classifiers, and {label} is a {type(predictor.model).__name__}')
        if args.classes:
            labels = [class_number(c, predictor.about['classes']) for c in args.classes]
        else:
            with torch.no_grad():
                scores = predictor.model(x, mode='tensor')[0]
            labels = scores.topk(min(args.top, len(scores))).indices.tolist()
        maps, scores = class_activation(predictor.model, x, labels)
        seen = predictor.seen(x)
        rows[label] = [dict(title=f'input, {x.shape[2]}x{x.shape[3]}', image=seen)]
        for number, value in zip(labels, maps):
            name = predictor.about['classes'][number].split(',')[0]
            rows[label].append(dict(title=f'{name} ({number})  {scores[number]:.2f}', image=seen, overlay=value))
    return rows


def class_number(text: str, classes: list[str]) -> int:
    # ImageNet's classes have several names.
    same = [i for i, names in enumerate(classes) if text == names or text in names.split(', ')]
    if len(same) > 1:
        raise UserError(f'the classes {", ".join(map(str, same))} are called {text!r}: give a number')
    if same:
        return same[0]
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    singly = [name for names in classes for name in names.split(', ')]
    close = difflib.get_close_matches(text, singly, 3, 0.4) or singly[:5]
    raise UserError(
        f'the class {text!r} does not exist; there is {", ".join(map(repr, close))} and others, {len(classes)} in all, '
        f'or a number from 0 to {len(classes) - 1}'
    )


def mixing(args) -> dict:
    """Token mixing of ResMLP and gMLP as spatial kernels: each small image is the weights of one token."""
    from mlp_backbones.visualization.explain import token_kernels
    from mlp_backbones.visualization.figures import tiled

    rows = {}
    for label, predictor in models(args).items():
        kernels = token_kernels(predictor.model.backbone)
        rows[label] = []
        for i in sorted({(len(kernels) - 1) * i // max(args.blocks - 1, 1) for i in range(args.blocks)}):
            # Red and blue around 0; the few largest weights would leave nothing of the rest.
            most = float(kernels[i].abs().flatten().sort().values[int(0.995 * kernels[i].numel())])
            image = tiled(kernels[i])
            rows[label].append(dict(title=f'block {i + 1}', image=image, cmap='RdBu_r', vmin=-most, vmax=most))
    return rows


def erf(args) -> dict:
    """Effective receptive field: the gradient of the center of each stage's map, averaged over inputs."""
    import itertools

    import torch

    from mlp_backbones.apis.complexity import input_size
    from mlp_backbones.apis.images import list_pictures, read_pictures
    from mlp_backbones.visualization.explain import receptive_fields, side_of

    size = size_of(args)
    paths = list_pictures(args.images) if args.images else []
    rows = {}
    for label, predictor in models(args).items():
        own, channels = size or input_size(predictor.cfg), predictor.about['channels']
        pictures = (p.image for p in read_pictures(paths, channels) if p.image is not None)
        inputs = [predictor.inputs(image, own) for image in itertools.islice(pictures, args.num)]
        if paths and len(inputs) < args.num:
            print(f'{label}: over {len(inputs)} images, which are all that can be read')
        if paths and not inputs:
            raise UserError(f'no image of {args.images} can be read')
        if not paths:
            generator = torch.Generator().manual_seed(0)
            inputs = [torch.randn(1, channels, *own, generator=generator) for _ in range(args.num)]
        rows[label] = [
            dict(
                title=title, image=field**0.3, cmap='magma', note=f'half of it within {side_of(field, center, 0.5)} px'
            )
            for title, (field, center) in receptive_fields(predictor.model.backbone, inputs).items()
        ]
    return rows


def main() -> None:
    args = parse_args()

    from mlp_backbones.visualization.figures import check_figure, gallery

    check_figure(args.out)
    gallery(args.out, args.run(args), side=2.7 if args.command == 'mixing' else 2.1)
    print(f'written: {args.out}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
