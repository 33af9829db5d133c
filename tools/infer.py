"""Predict on an image, a video or a folder of them, with a model of the zoo or one that was trained.

Classification, detection, instance and semantic segmentation; the model decides. OUT gets a picture of every prediction
in pictures/ and all of them in predictions.json: detections in COCO's results format (masks as RLE), the five best
classes of a classifier, the areas of a segmentor, whose maps of class indices are in maps/ as well.
"""

import argparse
import json
import sys
from pathlib import Path

from mlp_backbones.launch import UserError, check_writable, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', metavar='IMAGE_OR_FOLDER', help='image, video, or folder of them')
    parser.add_argument('--model', required=True, help='name of the zoo (docs/model_zoo.md), or path of a config')
    parser.add_argument(
        '--weights',
        metavar='FILE_OR_URL',
        help='a checkpoint of this package, timm, the authors, mmpretrain or PaddleViT (default: the published one); '
        "'none' for random weights, whose predictions mean nothing",
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--score', type=float, default=0.3, help='draw detections from this score up (default: 0.3)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default: 1)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1 (default: the GPU where there is one)')
    parser.add_argument('--no-pictures', action='store_true', help='write predictions only')
    parser.add_argument('--force', action='store_true', help='replace predictions that are there already')
    args = parser.parse_args()
    if args.batch_size < 1:
        raise UserError(f'--batch-size must be positive, got {args.batch_size}')
    if not 0 <= args.score <= 1:
        raise UserError(f'--score must be from 0 to 1, got {args.score}')
    target = args.out / 'predictions.json'
    if target.exists() and not args.force:
        raise UserError(f'{target} is there already; --force replaces it')

    import cv2
    from mmengine.utils import ProgressBar

    from mlp_backbones.checkpoints.files import written_whole
    from mlp_backbones.inference import (
        Detector,
        Predictor,
        Segmentor,
        batches,
        count_pictures,
        list_pictures,
        read_pictures,
    )

    paths = list_pictures(args.source)
    # Before the model is built; the folder itself is made after that.
    check_writable(next(p for p in (args.out, *args.out.parents) if p.exists()), 'the folder', '--out')
    predictor = Predictor.build(args.model, args.weights, args.device)
    if args.weights == 'none':
        print('random weights: the predictions mean nothing')
    check_writable(args.out, 'the folder', '--out')

    written = [target]

    def write(folder: str, name: str, image) -> str:
        path = args.out / folder / name
        path.parent.mkdir(exist_ok=True)
        if path.parent not in written:
            written.append(path.parent)
        with written_whole(path) as partial:
            partial.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
        return f'{folder}/{name}'

    # As in COCO, 000000000139.jpg is image 139; with other names, or one twice, images are counted.
    numbered = all(p.stem.isdecimal() for p in paths) and len({int(p.stem) for p in paths}) == len(paths)
    results, broken, seen = [], [], 0
    progress = ProgressBar(count_pictures(paths), file=sys.stderr)

    def readable():
        for picture in read_pictures(paths):
            if picture.image is None:
                broken.append(picture.file)
                progress.update()
            else:
                yield picture

    for batch in batches(readable(), args.batch_size, predictor.mixed):
        for picture, sample in zip(batch, predictor.predict([p.image for p in batch])):
            seen += 1
            about = dict(file_name=picture.file, **({'frame': picture.frame} if picture.frame else {}))
            if not args.no_pictures:
                write('pictures', f'{picture.name}.jpg', predictor.draw(picture.image, sample, args.score))
            record = predictor.record(sample)
            if isinstance(predictor, Detector):
                number = int(picture.name) if numbered else seen
                results += [dict(image_id=number, **about, **found) for found in record]
            else:
                if isinstance(predictor, Segmentor):
                    about['map'] = write('maps', f'{picture.name}.png', predictor.index_map(sample))
                results.append(dict(**about, **record))
            progress.update()
    print(file=sys.stderr)
    with written_whole(target) as partial:
        partial.write_text(json.dumps(results, indent=1))
    print(f'{seen} images; written: {", ".join(map(str, written))}')
    if broken:
        raise UserError(f'{len(broken)} of {len(broken) + seen} files could not be read: {", ".join(broken)}')


if __name__ == '__main__':
    sys.exit(run_tool(main))
