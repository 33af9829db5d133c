"""Predict on an image, a video or a folder of them, with a model of the zoo or one that was trained.

Classification, detection, instance and semantic segmentation; the model decides. OUT gets a picture of every prediction
in pictures/ and all of them in predictions.json: detections in COCO's results format (masks as RLE), the five best
classes of a classifier, the areas of a segmentor, whose maps of class indices are in maps/ as well.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from mlp_backbones.utils.cli import check_writable, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_whole


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', metavar='IMAGE_OR_FOLDER', help='image, video, or folder of them')
    parser.add_argument(
        '--model',
        required=True,
        help='name of the zoo (docs/model_zoo.md), path of a config, or file of tools/export.py',
    )
    parser.add_argument(
        '--weights',
        metavar='FILE_OR_URL',
        help='a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT (default: the published one); '
        "'none' for random weights, whose predictions mean nothing",
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument(
        '--ann',
        type=Path,
        metavar='FILE',
        help='COCO annotation file whose ids of images (by file name) and categories (by name) detections get',
    )
    parser.add_argument(
        '--score', type=float, default=0.3, help='draw and count detections from this score up (default: 0.3)'
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default: 1)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (default: the GPU where there is one)')
    parser.add_argument('--no-pictures', action='store_true', help='write predictions only')
    parser.add_argument(
        '--force',
        action='store_true',
        help='replace existing predictions; pictures and maps of images that are no longer there stay',
    )
    args = parser.parse_args()
    if args.batch_size < 1:
        raise UserError(f'--batch-size must be positive, got {args.batch_size}')
    if not 0 <= args.score <= 1:
        raise UserError(f'--score must be from 0 to 1, got {args.score}')
    return args


class Output:
    """The folder that predictions are written to."""

    def __init__(self, args: argparse.Namespace, predictor, image_ids: dict[str, int]) -> None:
        self.args, self.predictor, self.image_ids = args, predictor, image_ids
        self.results: list[dict] = []
        self.images = 0
        self.folders: list[Path] = []

    def write(self, folder: str, name: str, image) -> str:
        import cv2

        path = self.args.out / folder / name
        if path.parent not in self.folders:
            path.parent.mkdir(exist_ok=True)
            self.folders.append(path.parent)
        with written_whole(path) as partial:
            partial.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
        return f'{folder}/{name}'

    def add(self, picture, results: dict) -> None:
        from mlp_backbones.deploy.runtime import picture_name

        self.images += 1
        if not self.args.no_pictures:
            drawn = self.predictor.draw(picture.image, results, self.args.score)
            self.write('pictures', picture_name(picture.name, drawn), drawn)
        about = dict(file_name=picture.file, **({'frame': picture.frame} if picture.frame else {}))
        record = self.predictor.record(results)
        if isinstance(record, list):
            image_id = self.image_ids.get(picture.file, self.images)
            self.results += [dict(image_id=image_id, **about, **found) for found in record]
            return
        if 'label_map' in results:
            about['map'] = self.write('maps', f'{picture.name}.png', results['label_map'])
        self.results.append({**about, **record})

    def finish(self) -> None:
        target = self.args.out / 'predictions.json'
        with written_whole(target) as partial:
            partial.write_text(json.dumps(self.results, indent=1))
        found = ''
        if self.predictor.detects:
            sure = sum(result['score'] >= self.args.score for result in self.results)
            found = (
                f', {sure} detections with a score of at least {self.args.score:g} ({len(self.results)} of any score)'
            )
        print(f'{self.images} images{found}; written: {", ".join(map(str, [target, *self.folders]))}')


def build_model(args: argparse.Namespace):
    """Return what predicts: a file of tools/export.py, or a model in its framework."""
    if not args.model.endswith(('.onnx', '.xml')):
        from mlp_backbones.apis.inference import Predictor

        return Predictor.build(args.model, args.weights, args.device)
    from mlp_backbones.deploy.evaluate import open_runtime

    if args.weights or args.device or args.batch_size > 1:
        raise UserError(
            f'--weights, --device and --batch-size cannot be used with an exported file such as {args.model}'
        )
    return open_runtime(args.model)


def predict(predictor, batch: list, broken: list[str]) -> Iterator[tuple]:
    """Yield the pictures of a batch with their results; those that the model refuses are added to ``broken``."""
    import cv2

    from mlp_backbones.deploy.runtime import RuntimeProblem
    from mlp_backbones.utils.errors import InvalidValue

    try:
        yield from zip(batch, predictor.predict([picture.image for picture in batch]))
    except (RuntimeProblem, InvalidValue, cv2.error) as error:
        if len(batch) > 1:
            for picture in batch:
                yield from predict(predictor, [picture], broken)
        else:
            broken.append(f'{batch[0].file} ({error})')


def main() -> None:
    args = parse_args()
    target = args.out / 'predictions.json'
    if target.exists() and not args.force:
        raise UserError(f'{target} exists already; --force replaces it')

    from mmengine.utils import ProgressBar

    from mlp_backbones.apis.images import batches, list_pictures, read_pictures
    from mlp_backbones.datasets.validation.coco import ids_of_classes, ids_of_images, read_json
    from mlp_backbones.deploy.runtime import numbers_of
    from mlp_backbones.models.backbones.loading import shorten

    paths = list_pictures(args.source)
    annotations = read_json(args.ann) if args.ann else None
    image_ids = ids_of_images(annotations, [p.name for p in paths], args.ann) if args.ann else numbers_of(paths)
    # Before the model is built; the folder itself is made after that.
    check_writable(next(p for p in (args.out, *args.out.parents) if p.exists()))
    predictor = build_model(args)
    if args.ann:
        if not predictor.detects:
            raise UserError(f'--ann is for detectors, and {args.model} is for {predictor.about["task"]}')
        predictor.about['category_ids'] = ids_of_classes(annotations, predictor.about['classes'], args.ann)
    if args.weights == 'none':
        print('random weights: the predictions mean nothing')
    check_writable(args.out)

    output = Output(args, predictor, image_ids)
    broken: list[str] = []
    progress = ProgressBar(file=sys.stderr)

    def readable():
        for picture in read_pictures(paths, predictor.about['channels']):
            progress.update()
            if picture.image is None:
                broken.append(f'{picture.file} ({picture.problem})')
            else:
                yield picture

    for batch in batches(readable(), args.batch_size, predictor.mixed):
        for picture, results in predict(predictor, batch, broken):
            output.add(picture, results)
    print(file=sys.stderr)
    output.finish()
    if broken:
        total = len(broken) + output.images
        raise UserError(f'{len(broken)} of {total} images could not be used: {shorten(broken)}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
