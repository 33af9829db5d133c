"""A synthetic set of shapes, written in the formats of COCO, ADE20K and ImageNet.

Circles, squares and triangles of varied size, tilt, color and texture overlap on textured
backgrounds. Every image follows from the seed, the task, the split and its number alone.
"""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..utils.errors import InvalidValue

CLASSES = ('circle', 'square', 'triangle')
SIDES = (64, 4, 3)  # corners of each class' outline
UPRIGHT = np.deg2rad([0, 45, -90])  # each class' angle when it stands upright
TILT = np.deg2rad(20)  # and how far it may lean to either side
SCALE = 4  # scenes are drawn this much larger and averaged down, so that edges are smooth and masks exact


class Task(NamedTuple):
    """How one task's images look: (width, height) in pixels, how many objects, their radius in pixels."""

    size: tuple[int, int]
    objects: tuple[int, int]
    radius: tuple[float, float]
    images: tuple[int, int]  # training, validation


TASKS = {
    'detection': Task(size=(160, 128), objects=(2, 6), radius=(11, 30), images=(400, 100)),
    'segmentation': Task(size=(96, 96), objects=(2, 4), radius=(11, 26), images=(400, 100)),
    'classification': Task(size=(64, 64), objects=(1, 1), radius=(14, 28), images=(2000, 500)),
}


class Scene(NamedTuple):
    """An image and its objects."""

    image: np.ndarray  # (H, W, 3), uint8, RGB
    categories: list[int]  # of each object, an index into CLASSES
    owners: np.ndarray  # (H * SCALE, W * SCALE), uint8: 0 where the background is seen, k where the k-th object is


def _texture(rng: np.random.Generator, height: int, width: int, color: np.ndarray, contrast: float) -> np.ndarray:
    """Return a float image (height, width, 3) around ``color``: plain, striped, dotted or shaded, with noise."""
    y, x = np.mgrid[:height, :width] / SCALE
    angle = rng.uniform(0, np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period = rng.uniform(4, 12)
    kind = rng.integers(4)
    if kind == 0:
        wave = np.zeros((height, width))
    elif kind == 1:
        wave = np.sign(np.sin(2 * np.pi * along / period))
    elif kind == 2:
        wave = np.sign(np.sin(2 * np.pi * along / period) * np.sin(2 * np.pi * across / period) - 0.3)
    else:
        wave = 2 * (along - along.min()) / max(np.ptp(along), 1) - 1
    image = color + contrast * wave[..., None]
    return image + rng.normal(0, rng.uniform(1, 6), (height, width, 1))


def _place(rng: np.random.Generator, task: Task, category: int, owners: np.ndarray, areas: list[int]) -> Any:
    """Return the mask of another object at ``SCALE``; None where it would cover too much of those before it."""
    for _ in range(20):
        radius = SCALE * np.exp(rng.uniform(*np.log(task.radius)))
        margin = 0.9 * radius
        center = [rng.uniform(margin, max(SCALE * side - margin, margin + 1)) for side in task.size]
        angles = 2 * np.pi * np.arange(SIDES[category]) / SIDES[category] + UPRIGHT[category] + rng.uniform(-TILT, TILT)
        corners = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1) + center
        mask = cv2.fillPoly(np.zeros_like(owners), [np.round(corners).astype(np.int32)], 1)
        # What is seen of an object is never less than 70 % of it.
        seen = np.bincount(owners[mask == 0], minlength=len(areas) + 1)[1:]
        if all(seen >= 0.7 * np.array(areas)):
            return mask
    return None


def draw_scene(seed: int, name: str, split: int, index: int) -> Scene:
    """Draw an image of a task; the split is 0 or 1, of training or validation."""
    task, rng = TASKS[name], np.random.default_rng([seed, list(TASKS).index(name), split, index])
    if name == 'classification':
        categories = [index % len(CLASSES)]
    else:
        categories = rng.integers(len(CLASSES), size=rng.integers(task.objects[0], task.objects[1] + 1)).tolist()
    background = rng.uniform(40, 215, 3)
    owners = np.zeros((SCALE * task.size[1], SCALE * task.size[0]), np.uint8)
    image = _texture(rng, *owners.shape, background, rng.uniform(0, 12))
    placed: list[int] = []
    areas: list[int] = []  # before anything covered an object
    for category in categories:
        mask = _place(rng, task, category, owners, areas)
        if mask is None:
            continue
        placed.append(category)
        areas.append(int(mask.sum()))
        owners[mask > 0] = len(placed)
        color = background
        while np.abs(color - background).max() < 80:
            color = rng.uniform(10, 245, 3)
        x, y, width, height = cv2.boundingRect(mask)
        inside = mask[y : y + height, x : x + width] > 0
        texture = _texture(rng, height, width, color, rng.uniform(0, 25))
        image[y : y + height, x : x + width][inside] = texture[inside]
    small = cv2.resize(np.clip(image, 0, 255).astype(np.float32), task.size, interpolation=cv2.INTER_AREA)
    return Scene(np.round(small).astype(np.uint8), placed, owners)


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a mask at ``SCALE`` as COCO polygons, in image pixels."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [cv2.approxPolyDP(c, 1.0, True)[:, 0] for c in contours]
    return [np.round((o + 0.5) / SCALE, 2).ravel().tolist() for o in outlines if len(o) >= 3]


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _write_coco(root: Path, split: int, scenes: Iterable[Scene]) -> None:
    name = ('train2017', 'val2017')[split]
    images: list[dict] = []
    annotations: list[dict] = []
    for number, scene in enumerate(scenes, 1):
        file_name = f'{number:012d}.jpg'
        _save(root / name / file_name, scene.image)
        height, width = scene.image.shape[:2]
        images.append(dict(id=number, file_name=file_name, width=width, height=height))
        for key, category in enumerate(scene.categories, 1):
            mask = (scene.owners == key).astype(np.uint8)
            polygons = _polygons(mask)
            corners = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
            low, high = corners.min(0), corners.max(0)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=category + 1,
                    bbox=np.round([*low, *(high - low)], 2).tolist(),
                    area=round(float(mask.sum()) / SCALE**2, 2),
                    segmentation=polygons,
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=c, supercategory='shape') for i, c in enumerate(CLASSES)]
    target = root / 'annotations' / f'instances_{name}.json'
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def _write_ade(root: Path, split: int, scenes: Iterable[Scene]) -> None:
    name = ('training', 'validation')[split]
    for number, scene in enumerate(scenes, 1):
        # As in ADE20K, 0 means "unlabelled" and classes start at 1; here 1 is the background.
        labels = np.array([1, *(category + 2 for category in scene.categories)], np.uint8)
        _save(root / 'images' / name / f'{number:08d}.jpg', scene.image)
        middles = scene.owners[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE]
        _save(root / 'annotations' / name / f'{number:08d}.png', labels[middles])


def _write_imagenet(root: Path, split: int, scenes: Iterable[Scene]) -> None:
    for number, scene in enumerate(scenes, 1):
        _save(root / ('train', 'val')[split] / CLASSES[scene.categories[0]] / f'{number:08d}.jpg', scene.image)


_WRITERS = {'detection': _write_coco, 'segmentation': _write_ade, 'classification': _write_imagenet}


def make_shapes(
    root: str | os.PathLike,
    task: str,
    num_train: int | None = None,
    num_val: int | None = None,
    seed: int = 0,
    exist_ok: bool = False,
    verbose: bool = True,
) -> Path:
    """Write the set of one task, all or nothing.

    Args:
        root (str | PathLike): The folder to make.
        task (str): 'detection' (COCO: ``annotations/instances_{train,val}2017.json``, ``train2017/``, ``val2017/``),
            'segmentation' (ADE20K: ``images/`` and ``annotations/`` with ``training/`` and ``validation/``) or
            'classification' (ImageNet: ``train/`` and ``val/``, a folder for each class).
        num_train (int, optional): Training images. Defaults to the task's own number, see ``TASKS``.
        num_val (int, optional): Validation images. Likewise.
        seed (int): The same seed gives the same images. Defaults to 0.
        exist_ok (bool): Leave a folder that is already there as it is, instead of raising. Defaults to False.
        verbose (bool): Say what is drawn. Defaults to True.

    Returns:
        Path: ``root``.

    Raises:
        ValueError: An unknown task, fewer than one image, or a negative seed.
        FileExistsError: ``root`` exists already; nothing is ever overwritten.
    """
    root = Path(root)
    if task not in TASKS:
        raise InvalidValue(f'unknown task {task!r}; choose from {", ".join(TASKS)}')
    train, val = TASKS[task].images
    num_images = (train if num_train is None else num_train, val if num_val is None else num_val)
    if min(num_images) < 1:
        raise InvalidValue(f'num_train and num_val must be at least 1, got {num_images[0]} and {num_images[1]}')
    if seed < 0:
        raise InvalidValue(f'seed must not be negative, got {seed}')
    if root.exists():
        if exist_ok:
            return root
        raise FileExistsError(f'{root} exists already; remove it or name another folder')
    if verbose:
        print(f'Drawing the synthetic {task} set ({num_images[0]} + {num_images[1]} images) in {root}', flush=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{root.name}-', dir=root.parent) as folder:
        partial = Path(folder) / root.name
        for split, number in enumerate(num_images):
            _WRITERS[task](partial, split, (draw_scene(seed, task, split, index) for index in range(number)))
        try:
            partial.rename(root)
        except OSError:  # of the processes of a run that draw the same set, another was faster
            if not (exist_ok and root.exists()):
                raise
    return root
