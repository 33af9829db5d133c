"""Draw predictions (tools/test.py --out) beside the ground truth of a COCO annotation file, many images a picture.

Predictions have numbers of classes, and are named by the file's categories in their order there: it must be that of the
config's classes.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.utils import make_grid

from mlp_backbones.checkpoints.runs import read_predictions
from mlp_backbones.datasets.validation.coco import category_ids, check_coco, read_json
from mlp_backbones.datasets.validation.files import read_image
from mlp_backbones.utils.cli import check_target, run_tool
from mlp_backbones.utils.errors import UserError
from mlp_backbones.utils.files import written_whole

SUFFIXES = ('.png', '.jpg', '.jpeg')
# BGR, one for each class in turn; distinct on light and dark ground.
COLORS = [(75, 25, 230), (75, 180, 60), (25, 225, 255), (200, 130, 0), (180, 30, 145), (240, 240, 70), (48, 130, 245)]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('predictions', type=Path, help='.pkl file that tools/test.py --out wrote')
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
        raise UserError(f'the folder {args.images} does not exist')
    return args


def detections_of(path: Path) -> list[dict]:
    """Return what tools/test.py wrote of each image: ``img_id``, ``pred_instances`` (bboxes, labels, scores)."""
    if not path.is_file():
        raise UserError(f'the file {path} does not exist')
    predictions = read_predictions(path)
    if (
        not predictions
        or not isinstance(predictions, list)
        or not all(isinstance(p, dict) and {'img_id', 'pred_instances'} <= p.keys() for p in predictions)
    ):
        raise UserError(f'{path} holds no detections; tools/test.py --out writes them with a config of a detector')
    return predictions


def draw(image: np.ndarray, boxes, labels: list[int], texts: list[str]) -> np.ndarray:
    """Draw boxes (x1, y1, x2, y2 in pixels) and their texts on a copy of an image."""
    canvas = image.copy()
    for box, label, text in zip(boxes, labels, texts):
        x1, y1, x2, y2 = (int(round(v)) for v in box)
        color = COLORS[label % len(COLORS)]
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 2)
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
        # Inside the picture, above the box where it fits.
        x = min(max(x1, 0), max(canvas.shape[1] - width - 4, 0))
        y = y1 if y1 >= height + 6 else min(y1 + height + 6, canvas.shape[0])
        cv2.rectangle(canvas, (x, y - height - 6), (x + width + 4, y), color, -1)
        ink = (0, 0, 0) if np.dot(color, (0.11, 0.59, 0.3)) > 110 else (255, 255, 255)
        cv2.putText(canvas, text, (x + 2, y - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.45, ink, 1, cv2.LINE_AA)
    return canvas


def pair(prediction: dict, truth: dict, args: argparse.Namespace) -> Tensor:
    """Draw an image, (3, H, W), twice: with its annotations, and right of it with what was predicted."""
    names = list(category_ids(truth))
    numbers = {category['id']: i for i, category in enumerate(truth['categories'])}
    files = {image['id']: image['file_name'] for image in truth['images']}
    found, key = prediction['pred_instances'], prediction['img_id']
    if key not in files or len(found['labels']) and found['labels'].max() >= len(names):
        raise UserError(f'{args.predictions} is not of the images and classes of {args.annotations}')
    image = read_image(args.images / files[key])
    zoom = args.width / image.shape[1]
    height = max(1, round(zoom * image.shape[0]))
    image = cv2.resize(image, (args.width, height), interpolation=cv2.INTER_CUBIC)

    own = [annotation for annotation in truth['annotations'] if annotation['image_id'] == key]
    boxes = [(zoom * x, zoom * y, zoom * (x + w), zoom * (y + h)) for x, y, w, h in (a['bbox'] for a in own)]
    labels = [numbers[annotation['category_id']] for annotation in own]
    left = draw(image, boxes, labels, [names[label] for label in labels])

    # The surest last, so that nothing covers them.
    order = [i for i in found['scores'].argsort().tolist() if found['scores'][i] >= args.score]
    labels = found['labels'][order].tolist()
    texts = [f'{names[label]} {score:.2f}' for label, score in zip(labels, found['scores'][order].tolist())]
    right = draw(image, (found['bboxes'][order] * zoom).tolist(), labels, texts)
    gap = np.full((left.shape[0], 4, 3), 255, np.uint8)
    return torch.from_numpy(np.hstack([left, gap, right])).permute(2, 0, 1)


def main() -> None:
    args = parse_args()
    truth = read_json(args.annotations)
    if errors := [problem for problem in check_coco(truth, test=True) if problem.level == 'error']:
        raise UserError(f'{args.annotations} is not a COCO annotation file: {"; ".join(map(str, errors))}')
    pairs = [pair(prediction, truth, args) for prediction in detections_of(args.predictions)[: args.num]]
    height = max(image.shape[1] for image in pairs)
    pairs = [F.pad(image, (0, 0, 0, height - image.shape[1]), value=255) for image in pairs]
    picture = make_grid(torch.stack(pairs), args.columns, padding=12, pad_value=255)
    written, content = cv2.imencode(args.out.suffix, picture.permute(1, 2, 0).contiguous().numpy())
    if not written:
        raise UserError(f'a picture of {len(pairs)} images is too large for {args.out.suffix}; --num draws fewer')
    with written_whole(args.out) as partial:
        partial.write_bytes(content)
    print(f'{args.out}: {len(pairs)} images, left the ground truth, right the detections')


if __name__ == '__main__':
    sys.exit(run_tool(main))
