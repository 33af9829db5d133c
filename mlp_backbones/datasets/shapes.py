"""A synthetic set of shapes, written in the formats of COCO, ADE20K and ImageNet.

Circles, squares and triangles of varied size, tilt, color and texture overlap on textured
backgrounds. Every image follows from the seed, the task, the split and its number alone.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..utils.errors import InvalidValue

CLASSES = ('circle', 'square', 'triangle')
SIDES = (64, 4, 3)  # corners of each class' outline
UPRIGHT = np.deg2rad([0, 45, -90])  # each class' angle when it stands upright
TILT = np.deg2rad(20)  # and how far it may lean to either side
SCALE = 4  # scenes are drawn this much larger and averaged down, so that edges are smooth and masks exact


@dataclass(frozen=True)
class Task:
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


@dataclass
class Shape:
    """An object of a scene: its class (index into ``CLASSES``) and the mask of what is seen of it, at ``SCALE``."""

    category: int
    mask: np.ndarray
    whole: int  # mask pixels before anything covered it


def _outline(category: int, radius: float, angle: float) -> np.ndarray:
    """Return the corners (K, 2) of a shape around the origin."""
    theta = 2 * np.pi * np.arange(SIDES[category]) / SIDES[category] + angle
    return radius * np.stack([np.cos(theta), np.sin(theta)], axis=1)


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


def draw_scene(rng: np.random.Generator, task: Task, categories: Iterable[int] | None = None):
    """Draw one image.

    Args:
        rng (np.random.Generator): Where every choice comes from.
        task (Task): Size of the image, number and radius of the objects.
        categories (Iterable[int], optional): The objects' classes. Defaults to a random choice.

    Returns:
        tuple[np.ndarray, list[Shape]]: The image (H, W, 3), uint8, RGB; and what is seen of each object.
    """
    import cv2

    width, height = (SCALE * n for n in task.size)
    if categories is None:
        categories = rng.integers(len(CLASSES), size=rng.integers(task.objects[0], task.objects[1] + 1))
    background = rng.uniform(40, 215, 3)
    image = _texture(rng, height, width, background, rng.uniform(0, 12))
    shapes: list[Shape] = []
    for category in categories:
        for _ in range(20):
            radius = SCALE * np.exp(rng.uniform(*np.log(task.radius)))
            margin = 0.9 * radius
            center = [rng.uniform(margin, max(side - margin, margin + 1)) for side in (width, height)]
            points = _outline(int(category), radius, UPRIGHT[int(category)] + rng.uniform(-TILT, TILT)) + center
            mask = np.zeros((height, width), np.uint8)
            cv2.fillPoly(mask, [np.round(points).astype(np.int32)], 1)
            # What is seen of an object is never less than 70 % of it.
            if all((s.mask & (1 - mask)).sum() >= 0.7 * s.whole for s in shapes):
                break
        else:
            continue
        for other in shapes:
            other.mask &= 1 - mask
        color = background
        while np.abs(color - background).max() < 80:
            color = rng.uniform(10, 245, 3)
        x0, y0, w, h = cv2.boundingRect(mask)
        inside = mask[y0 : y0 + h, x0 : x0 + w] > 0
        image[y0 : y0 + h, x0 : x0 + w][inside] = _texture(rng, h, w, color, rng.uniform(0, 25))[inside]
        shapes.append(Shape(int(category), mask, int(mask.sum())))
    small = cv2.resize(np.clip(image, 0, 255).astype(np.float32), task.size, interpolation=cv2.INTER_AREA)
    return np.round(small).astype(np.uint8), shapes


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """Return the outlines of a mask at ``SCALE`` as COCO polygons, in image pixels."""
    import cv2

    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [cv2.approxPolyDP(c, 1.0, True)[:, 0] for c in contours]
    return [np.round((o + 0.5) / SCALE, 2).ravel().tolist() for o in outlines if len(o) >= 3]


def _rng(seed: int, task: str, split: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, list(TASKS).index(task), split, index])


def _save(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _write_coco(root: Path, task: Task, num_images: tuple[int, int], seed: int, progress: Callable) -> None:
    for split, name in enumerate(('train2017', 'val2017')):
        images: list[dict] = []
        annotations: list[dict] = []
        for index in range(num_images[split]):
            image, shapes = draw_scene(_rng(seed, 'detection', split, index), task)
            file_name = f'{index + 1:012d}.jpg'
            _save(root / name / file_name, image)
            images.append(dict(id=index + 1, file_name=file_name, width=task.size[0], height=task.size[1]))
            for shape in shapes:
                polygons = _polygons(shape.mask)
                corners = np.concatenate([np.reshape(p, (-1, 2)) for p in polygons])
                low, high = corners.min(0), corners.max(0)
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=index + 1,
                        category_id=shape.category + 1,
                        bbox=np.round([*low, *(high - low)], 2).tolist(),
                        area=round(float(shape.mask.sum()) / SCALE**2, 2),
                        segmentation=polygons,
                        iscrowd=0,
                    )
                )
            progress()
        categories = [dict(id=i + 1, name=c, supercategory='shape') for i, c in enumerate(CLASSES)]
        target = root / 'annotations' / f'instances_{name}.json'
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))


def _write_ade(root: Path, task: Task, num_images: tuple[int, int], seed: int, progress: Callable) -> None:
    # As in ADE20K, 0 means "unlabelled" and classes start at 1; here 1 is the background.
    for split, name in enumerate(('training', 'validation')):
        for index in range(num_images[split]):
            image, shapes = draw_scene(_rng(seed, 'segmentation', split, index), task)
            labels = np.ones((task.size[1], task.size[0]), np.uint8)
            for shape in shapes:
                labels[shape.mask[SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] > 0] = shape.category + 2
            _save(root / 'images' / name / f'{index + 1:08d}.jpg', image)
            _save(root / 'annotations' / name / f'{index + 1:08d}.png', labels)
            progress()


def _write_imagenet(root: Path, task: Task, num_images: tuple[int, int], seed: int, progress: Callable) -> None:
    for split, name in enumerate(('train', 'val')):
        for index in range(num_images[split]):
            category = index % len(CLASSES)
            image, _ = draw_scene(_rng(seed, 'classification', split, index), task, [category])
            _save(root / name / CLASSES[category] / f'{index + 1:08d}.jpg', image)
            progress()


_WRITERS = {'detection': _write_coco, 'segmentation': _write_ade, 'classification': _write_imagenet}


@contextlib.contextmanager
def _locked(folder: Path):
    """Hold other processes of this machine off ``folder``, where the system has such locks; leaves nothing behind."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes that draw the same set at once end with an error
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
        verbose (bool): Show progress. Defaults to True.

    Returns:
        Path: ``root``.

    Raises:
        ValueError: An unknown task, or fewer than one image.
        FileExistsError: ``root`` exists already; nothing is ever overwritten.
    """
    root = Path(root)
    if task not in TASKS:
        raise InvalidValue(f'unknown task {task!r}; choose from {", ".join(TASKS)}')
    settings = TASKS[task]
    train, val = settings.images
    num_images = (train if num_train is None else num_train, val if num_val is None else num_val)
    if min(num_images) < 1:
        raise InvalidValue(f'num_train and num_val must be at least 1, got {num_images[0]} and {num_images[1]}')
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.parent):
        if root.exists():
            if exist_ok:
                return root
            raise FileExistsError(f'{root} exists already; remove it or name another folder')
        if verbose:
            print(f'Drawing the synthetic {task} set ({num_images[0]} + {num_images[1]} images) in {root}', flush=True)
        done = 0

        def progress() -> None:
            nonlocal done
            done += 1
            if verbose and (done % 100 == 0 or done == sum(num_images)):
                print(f'  {done}/{sum(num_images)}', flush=True)

        partial = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
        try:
            _WRITERS[task](partial, settings, num_images, seed, progress)
            partial.chmod(0o755)
            partial.rename(root)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    return root
