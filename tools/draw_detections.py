"""Draw predictions (tools/test.py --out) beside the ground truth of a COCO annotation file, many images a picture."""

import argparse
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np

from mlp_backbones.checkpoints.files import written_whole
from mlp_backbones.datasets.coco import category_names, check_coco, read_json
from mlp_backbones.launch import UserError, check_target, run_tool

SUFFIXES = ('.png', '.jpg', '.jpeg')
# BGR, one for each class in turn; distinct on light and dark ground.
COLOURS = [(75, 25, 230), (75, 180, 60), (25, 225, 255), (200, 130, 0), (180, 30, 145), (240, 240, 70), (48, 130, 245)]


def draw(image: np.ndarray, boxes, labels, texts, zoom: float) -> np.ndarray:
    """``image`` enlarged by ``zoom`` with boxes (x1, y1, x2, y2 in its pixels) and their texts."""
    canvas = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    for box, label, text in zip(boxes, labels, texts):
        x1, y1, x2, y2 = (int(round(v * zoom)) for v in box)
        colour = COLOURS[label % len(COLOURS)]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, 2)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        # Inside the picture, above the box where there is room.
        x = min(max(x1, 0), max(canvas.shape[1] - width - 4, 0))
        y = y1 if y1 >= height + 6 else min(y1 + height + 6, canvas.shape[0])
        cv2.rectangle(canvas, (x, y - height - 6), (x + width + 4, y), colour, -1)
        ink = (0, 0, 0) if np.dot(colour, (0.11, 0.59, 0.3)) > 110 else (255, 255, 255)
        cv2.putText(canvas, text, (x + 2, y - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
    return canvas


def read_predictions(path: Path) -> list[dict]:
    """What tools/test.py wrote of each image: ``img_id`` and ``pred_instances`` (bboxes, labels, scores)."""
    try:
        with path.open('rb') as handle:
            predictions = pickle.load(handle)
    except Exception as error:  # a file that is no pickle can raise nearly anything
        raise UserError(f'{path} is no file of predictions: {type(error).__name__}: {error}') from error
    if (
        not predictions
        or not isinstance(predictions, list)
        or not all(isinstance(p, dict) and {'img_id', 'pred_instances'} <= p.keys() for p in predictions)
    ):
        raise UserError(f'{path} holds no detections; tools/test.py --out writes them with a config of a detector')
    return predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'predictions', type=Path, help='.pkl file that tools/test.py --out wrote (a pickle: your own only)'
    )
    parser.add_argument('annotations', type=Path, help='COCO annotation file')
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('out', type=Path, help='picture to write, .png or .jpg')
    parser.add_argument('--num', type=int, default=12, help='images to draw (default: 12)')
    parser.add_argument('--columns', type=int, default=3, help='pairs in a row (default: 3)')
    parser.add_argument('--score', type=float, default=0.3, help='draw detections from this score up (default: 0.3)')
    parser.add_argument('--width', type=int, default=320, help='pixels of one image (default: 320)')
    args = parser.parse_args()
    for option in ('num', 'columns', 'width'):
        if getattr(args, option) < 1:
            raise UserError(f'--{option} must be positive, got {getattr(args, option)}')
    if not 0 <= args.score <= 1:
        raise UserError(f'--score must be from 0 to 1, got {args.score}')
    if args.out.suffix.lower() not in SUFFIXES:
        raise UserError(f'the file to write must end in {", ".join(SUFFIXES)}, got {args.out}')
    check_target(args.out)
    if not args.images.is_dir():
        raise UserError(f'there is no folder {args.images}')
    truth = read_json(args.annotations)
    if errors := [f for f in check_coco(truth, test=True) if f.level == 'error']:
        raise UserError(f'{args.annotations} is not a COCO annotation file: {"; ".join(map(str, errors))}')
    names = category_names(truth)
    number = {c['id']: i for i, c in enumerate(truth['categories'])}
    files = {i['id']: i['file_name'] for i in truth['images']}
    predictions = read_predictions(args.predictions)[: args.num]
    tiles = []
    for prediction in predictions:
        found, key = prediction['pred_instances'], prediction['img_id']
        if key not in files or len(found['labels']) and found['labels'].max() >= len(names):
            raise UserError(f'{args.predictions} is not of the images and classes of {args.annotations}')
        path = args.images / files[key]
        image = cv2.imread(str(path)) if path.is_file() else None
        if image is None:
            raise UserError(f'{path} is {"no image that can be read" if path.exists() else "not there"}')
        zoom = args.width / image.shape[1]
        own = [a for a in truth['annotations'] if a['image_id'] == key]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (a['bbox'] for a in own)]
        labels = [number[a['category_id']] for a in own]
        left = draw(image, boxes, labels, [names[label] for label in labels], zoom)
        # The surest last, so that nothing covers them.
        order = [i for i in found['scores'].argsort().tolist() if found['scores'][i] >= args.score]
        labels = found['labels'][order].tolist()
        texts = [f'{names[label]} {score:.2f}' for label, score in zip(labels, found['scores'][order].tolist())]
        right = draw(image, found['bboxes'][order].tolist(), labels, texts, zoom)
        gap = np.full((left.shape[0], 4, 3), 255, np.uint8)
        tiles.append(
            cv2.copyMakeBorder(np.hstack([left, gap, right]), 6, 6, 6, 6, cv2.BORDER_CONSTANT, value=(255,) * 3)
        )
    height = max(t.shape[0] for t in tiles)
    tiles = [cv2.copyMakeBorder(t, 0, height - t.shape[0], 0, 0, cv2.BORDER_CONSTANT, value=(255,) * 3) for t in tiles]
    while len(tiles) % args.columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[i : i + args.columns]) for i in range(0, len(tiles), args.columns)]
    done, content = cv2.imencode(args.out.suffix, np.vstack(rows))
    if not done:
        raise UserError(f'a picture of {len(predictions)} images is too large for {args.out.suffix}; --num draws fewer')
    with written_whole(args.out) as partial:
        partial.write_bytes(content)
    print(f'{args.out}: {len(predictions)} images, left the ground truth, right the detections')


if __name__ == '__main__':
    sys.exit(run_tool(main))
