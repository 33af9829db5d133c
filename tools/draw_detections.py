"""Draw predictions (tools/test.py --out) beside the ground truth of a COCO annotation file, many images a picture."""

import argparse
import json
import pickle
import sys
from pathlib import Path

import cv2
import numpy as np

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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('predictions', type=Path, help='.pkl file that tools/test.py --out wrote')
    parser.add_argument('annotations', type=Path, help='COCO annotation file')
    parser.add_argument('images', type=Path, help='folder of the images')
    parser.add_argument('out', type=Path, help='picture to write')
    parser.add_argument('--num', type=int, default=12, help='images to draw (default: 12)')
    parser.add_argument('--columns', type=int, default=3, help='pairs in a row (default: 3)')
    parser.add_argument('--score', type=float, default=0.4, help='draw detections from this score up (default: 0.4)')
    parser.add_argument('--width', type=int, default=320, help='pixels of one image (default: 320)')
    args = parser.parse_args()
    for path in (args.predictions, args.annotations, args.images):
        if not path.exists():
            print(f'error: {path} is not there', file=sys.stderr)
            return 1
    truth = json.loads(args.annotations.read_text())
    classes = {c['id']: (i, c['name']) for i, c in enumerate(sorted(truth['categories'], key=lambda c: c['id']))}
    names = [name for _, name in classes.values()]
    files = {i['id']: i['file_name'] for i in truth['images']}
    with args.predictions.open('rb') as handle:
        predictions = pickle.load(handle)[: args.num]
    tiles = []
    for prediction in predictions:
        image = cv2.imread(str(args.images / files[prediction['img_id']]))
        zoom = args.width / image.shape[1]
        own = [a for a in truth['annotations'] if a['image_id'] == prediction['img_id']]
        boxes = [(x, y, x + w, y + h) for x, y, w, h in (a['bbox'] for a in own)]
        labels = [classes[a['category_id']][0] for a in own]
        left = draw(image, boxes, labels, [names[label] for label in labels], zoom)
        found = prediction['pred_instances']
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
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(args.out), np.vstack(rows)):
        print(f'error: cannot write {args.out}', file=sys.stderr)
        return 1
    print(f'{args.out}: {len(predictions)} images, left the ground truth, right the detections')
    return 0


if __name__ == '__main__':
    sys.exit(main())
