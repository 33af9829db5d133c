"""What is wrong with an annotation file in COCO's format, said before a framework trips over it."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from .files import DataError, Finding, Findings, listed, short

LARGEST = 1e9  # of any coordinate or area, in pixels
LAST_ID = 2**63 - 1


def read_json(path: str | os.PathLike) -> object:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = 'is nested too deeply' if isinstance(error, RecursionError) else f'{type(error).__name__}: {error}'
        raise DataError(f'{path} is not a COCO annotation file: {reason}') from error


def looks_whole(path: str | os.PathLike) -> bool:
    """Whether a file begins and ends as a JSON object does, from its first and last bytes."""
    with open(path, 'rb') as file:
        head = file.read(64).lstrip()
        file.seek(max(file.seek(0, os.SEEK_END) - 64, 0))
        return head.startswith(b'{') and file.read().rstrip().endswith(b'}')


def check_coco(
    data: object, classes: Sequence[str] | None = None, masks: bool = False, test: bool = False
) -> list[Finding]:
    """Everything that is wrong with the content of a COCO annotation file.

    Args:
        data (object): What the file holds.
        classes (Sequence[str], optional): The class names that the dataset asks for. Without, any will do.
        masks (bool): Instance masks are going to be loaded. Defaults to False.
        test (bool): The file is going to be evaluated on. Defaults to False.

    Returns:
        list[Finding]: Errors and warnings, empty where all is well.
    """
    found = Findings()
    if not isinstance(data, dict):
        found.add(f'the file holds a {type(data).__name__}, not a dictionary of images, annotations and categories')
        return found.list()
    parts = []
    for key in ('categories', 'images', 'annotations'):
        value = data.get(key)
        if key not in data:
            found.add(f'there is no key {key!r}')
        elif not isinstance(value, list):
            found.add(f'{key!r} is a {type(value).__name__}, not a list')
        elif not value and not (key == 'annotations' and test):
            found.add(f'{key!r} is empty')
        parts.append(list(_dicts(value, key, found)) if isinstance(value, list) else [])
    categories = _check_categories(parts[0], classes, found)
    images = _check_images(parts[1], found)
    if not found.list('error') or categories and images:
        _check_annotations(parts[2], images, categories, set(classes or categories.values()), masks, test, found)
    return found.list()


def category_names(data: object) -> list[str]:
    """The names of a COCO file's categories, in the file's order, which is that of the labels.

    Raises:
        DataError: There are none that can be used.
    """
    found = Findings()
    entries = data.get('categories') if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise DataError("there is no list 'categories'")
    categories = _check_categories(list(_dicts(entries, 'categories', found)), None, found)
    if found.list('error'):
        raise DataError('; '.join(map(str, found.list('error'))))
    return list(categories.values())


def _dicts(values: list, key: str, found: Findings) -> Iterable[dict]:
    for number, value in enumerate(values):
        if isinstance(value, dict):
            yield value
        else:
            found.add(f'entries of {key!r} that are no dictionary', f'number {number}')


def _check_categories(entries: list[dict], classes: Sequence[str] | None, found: Findings) -> dict:
    """The usable categories: id -> name."""
    categories: dict = {}
    for entry in entries:
        key, name = entry.get('id'), entry.get('name')
        if not _is_id(key):
            found.add('categories whose id is missing or no 64-bit integer', key)
        elif not isinstance(name, str):
            found.add('categories whose name is missing or no text', key)
        elif key in categories:
            found.add('category ids that are there twice', key)
        elif name in categories.values():
            found.add('category names that are there twice', name)
        else:
            categories[key] = name
    if classes and categories:
        names = [n for n in categories.values() if n in classes]
        missing = [c for c in classes if c not in names]
        if not names:
            have = listed(list(categories.values()))
            found.add(f'none of the {len(classes)} classes of the dataset is there; the file has {have}')
        elif missing or names != list(classes):
            what = f'there is no category for {len(missing)} of' if missing else 'another order than that of'
            found.add(
                f"{what} the dataset's {len(classes)} classes: labels follow the file, names the config",
                level='warning',
            )
        for name in categories.values():
            if name not in classes:
                found.add('categories that the dataset does not ask for', name, 'warning')
    return categories


def _check_images(entries: list[dict], found: Findings) -> dict:
    """The usable images: id -> (width, height)."""
    images: dict = {}
    kinds = set()
    for entry in entries:
        key, name = entry.get('id'), entry.get('file_name')
        if not (_is_id(key) or isinstance(key, str)):
            found.add('images whose id is missing or no 64-bit integer', key)
            continue
        kinds.add(type(key))
        if not _is_file_name(name):
            found.add('images whose file_name is missing or not usable', key)
        if not all(_is_number(entry.get(side)) and entry[side] >= 1 for side in ('width', 'height')):
            found.add('images whose width or height is missing or not positive', key)
        elif key in images:
            found.add('image ids that are there twice', key)
        else:
            images[key] = (entry['width'], entry['height'])
    if len(kinds) > 1:
        found.add('image ids of two kinds, numbers and text')
    return images


def _check_annotations(
    entries: list[dict], images: dict, categories: dict, wanted: set, masks: bool, test: bool, found: Findings
) -> None:
    ids = set()
    for entry in entries:
        key = entry.get('id')
        if not _is_id(key):
            found.add('annotations whose id is missing or no 64-bit integer', key)
            continue
        if key in ids:
            found.add('annotation ids that are there twice', key)
        ids.add(key)
        if key == 0 and test:
            found.add("an annotation with id 0, which COCO's evaluation counts as not found", level='warning')
        category, image = entry.get('category_id'), entry.get('image_id')
        if not _is_id(category) or category not in categories:
            found.add('annotations of a category that the file does not have', f'{key} of {short(category)}')
        if not (_is_id(image) or isinstance(image, str)) or image not in images:
            found.add('annotations of an image that the file does not have', f'{key} of {short(image)}')
            continue
        if test and (type(entry.get('iscrowd')) not in (int, bool) or entry['iscrowd'] not in (0, 1)):
            found.add("annotations whose iscrowd is not 0 or 1, which COCO's evaluation needs", key)
        kept = _check_box(entry, key, images[image], found)
        if entry.get('ignore', False) or _is_id(category) and categories.get(category) not in wanted:
            kept = False
        _check_mask(entry, key, images[image], 'error' if masks and kept else 'warning', found)


def _check_box(entry: dict, key: int, size: tuple, found: Findings) -> bool:
    """Whether a box is one to learn: it is not left out for its size."""
    box, area = entry.get('bbox'), entry.get('area')
    if not _is_number(area):
        found.add('annotations whose area is missing or no finite number', key)
        return False
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        found.add('annotations whose bbox is missing or not four finite numbers', key)
        return False
    x, y, w, h = box
    if w < 0 or h < 0:
        found.add('boxes of negative width or height', key)
    elif w < 1 or h < 1 or area <= 0:
        found.add('boxes of less than one pixel, which are left out', key, 'warning')
    elif x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0:
        found.add('boxes wholly outside of their image', key)
    else:
        if x < -1 or y < -1 or x + w > size[0] + 1 or y + h > size[1] + 1:
            found.add('boxes partly outside of their image', key, 'warning')
        return True
    return False


def _check_mask(entry: dict, key: int, size: tuple, level: str, found: Findings) -> None:
    mask = entry.get('segmentation')
    if not mask:
        if level == 'error' or 'segmentation' in entry:
            found.add('annotations without a segmentation', key, level)
    elif isinstance(mask, list):
        if not all(isinstance(p, list) and _is_finite(p) for p in mask):
            found.add('segmentations that are not lists of finite numbers', key, level)
            return
        good = sum(len(p) >= 6 and len(p) % 2 == 0 for p in mask)
        if good < len(mask):
            text = 'polygons of fewer than 6 numbers, or an odd number'
            found.add(text if good else text + ', and no other', key, 'warning' if good else level)
    elif isinstance(mask, dict):
        if problem := _rle_problem(mask, size):
            found.add(problem, key, level)
    else:
        found.add('segmentations that are neither polygons nor RLE', key, level)


def _rle_problem(rle: dict, size: tuple) -> str | None:
    if rle.get('size') != [size[1], size[0]]:
        return 'RLE masks whose size is not that of their image'
    counts = rle.get('counts')
    if isinstance(counts, str):
        counts = _rle_counts(counts)
    if not isinstance(counts, list) or not all(type(c) is int and c >= 0 for c in counts):
        return 'RLE masks that cannot be read'
    if sum(counts) != size[0] * size[1]:
        return 'RLE masks that do not fill their image'
    return None


def _rle_counts(text: str) -> list[int] | None:
    """The run lengths of COCO's compressed RLE, five bits a character, from the third on as differences; or None.

    Written from the format's description, so that hostile text never reaches compiled code.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return None if shift else counts


def _is_id(value: Any) -> TypeGuard[int]:
    return type(value) is int and -LAST_ID <= value <= LAST_ID


def _is_number(value: Any) -> TypeGuard[float]:
    return type(value) in (int, float) and -LARGEST < value < LARGEST  # false for NaN too


def _is_finite(values: list) -> bool:
    """As ``_is_number`` for each; COCO has 40 million coordinates."""
    try:
        return -LARGEST < sum(map(abs, values)) < LARGEST
    except (TypeError, OverflowError):
        return False


def _is_file_name(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(name) and b'\0' not in os.fsencode(name)
    except UnicodeError:
        return False
