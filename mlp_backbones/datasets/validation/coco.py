"""What is wrong with an annotation file in COCO's format, and the ids that one gives to its categories and images."""

import difflib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...utils.errors import DataError
from .files import Finding, Findings, listed

LARGEST = 1e9  # of any coordinate or area, in pixels
# How warnings end that are about classes other than those of the dataset.
ABOUT_CLASSES = ('labels follow the file, names the config', 'that the dataset does not ask for')


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST < value < LARGEST  # false for NaN too


ID = ('a 64-bit integer', _is_id)
IMAGE_ID = ('a 64-bit integer or a string', lambda value: _is_id(value) or isinstance(value, str))
SIDE = ('a positive number', lambda value: _is_number(value) and value >= 1)
NAME = ('the name of a file', lambda value: isinstance(value, str) and value != '' and '\0' not in value)
BOX = (
    'four finite numbers, the last two not negative',
    lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0,
)
# What every entry of a file must have.
FIELDS: dict[str, dict[str, tuple[str, Callable[[Any], bool]]]] = {
    'categories': dict(id=ID, name=('a string', lambda value: isinstance(value, str))),
    'images': dict(id=IMAGE_ID, file_name=NAME, width=SIDE, height=SIDE),
    'annotations': dict(id=ID, category_id=ID, image_id=IMAGE_ID, area=('a finite number', _is_number), bbox=BOX),
}


def read_json(path: str | os.PathLike) -> object:
    """Read a JSON file.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f'{path} is not a COCO annotation file: {type(error).__name__}: {error}') from error


def looks_whole(path: str | os.PathLike) -> bool:
    """Return whether a file begins and ends as a JSON object does, from its first and last bytes."""
    with open(path, 'rb') as file:
        head = file.read(64).lstrip()
        file.seek(max(file.seek(0, os.SEEK_END) - 64, 0))
        return head.startswith(b'{') and file.read().rstrip().endswith(b'}')


def check_coco(
    data: object, classes: Sequence[str] | None = None, given: bool = False, test: bool = False
) -> list[Finding]:
    """Find what is wrong with the content of a COCO annotation file; masks are for pycocotools to read.

    Args:
        data (object): What the file holds.
        classes (Sequence[str], optional): The class names that the dataset asks for. Without, any will do.
        given (bool): The config names the classes, so that one without a category is an error. Defaults to False: they
            are those of a public dataset.
        test (bool): The file is going to be evaluated on, and need not have annotations. Defaults to False.

    Returns:
        list[Finding]: Errors and warnings, empty where all is well.
    """
    found = Findings()
    if not isinstance(data, dict):
        found.add(f'the file holds a {type(data).__name__}, not a dictionary of images, annotations and categories')
        return found.list()
    categories, images, annotations = (_usable(data, part, found, test) for part in FIELDS)
    names = _names(categories, found)
    if classes and names:
        _compare_classes(list(names), classes, found, given)
    if not categories or not images:
        return found.list()  # every annotation would be wrong
    for key, entry in annotations.items():
        image = images.get(entry['image_id'])
        if entry['category_id'] not in categories:
            found.add('annotations of a category that the file does not have', key)
        elif image is None:
            found.add('annotations of an image that the file does not have', key)
        elif min(entry['bbox'][2:]) < 1 or entry['area'] <= 0:
            found.add('boxes of less than one pixel, which are left out', key, 'warning')
        elif not _overlap(entry['bbox'], image):
            found.add('boxes wholly outside of their image', key)
    return found.list()


def category_ids(data: Any) -> dict[str, int]:
    """Return the id of every category of a COCO file, by its name, in the file's order, which is that of the labels.

    Raises:
        DataError: The categories cannot be used.
    """
    found = Findings()
    ids = _names(_usable(data if isinstance(data, dict) else {}, 'categories', found), found)
    if errors := found.list():
        raise DataError('; '.join(map(str, errors)))
    return ids


def ids_of_classes(data: Any, classes: Sequence[str], path: str | os.PathLike) -> list[int]:
    """Return the category ids of a model's classes, in its order; ``path`` is for messages.

    Raises:
        DataError: A class is not a category of the file.
    """
    try:
        ids = category_ids(data)
    except DataError as error:
        raise DataError(f'{path}: {error}') from error
    if missing := [name for name in classes if name not in ids]:
        raise DataError(f'{path} has no category for the classes {listed(missing)} of the model, only {listed([*ids])}')
    return [ids[name] for name in classes]


def ids_of_images(data: Any, names: Sequence[str], path: str | os.PathLike) -> dict[str, int]:
    """Return the image ids of files, by their names without folders; ``path`` is for messages.

    Raises:
        DataError: A name is not in the file, or there several times, in different folders.
    """
    images = data.get('images') if isinstance(data, dict) else None
    if not isinstance(images, list):
        raise DataError(f"{path} has no list 'images'")
    found: dict[str, list[int]] = {}
    for image in images:
        key, name = (image.get('id'), image.get('file_name')) if isinstance(image, dict) else (None, None)
        if type(key) is not int or not isinstance(name, str):
            raise DataError(f'{path}: an image needs an integer id and a file_name, got {image!r:.80}')
        found.setdefault(PurePosixPath(name).name, []).append(key)
    if missing := [name for name in names if name not in found]:
        raise DataError(f'{path} does not have {len(missing)} of the {len(names)} files: {listed(missing)}')
    if several := [name for name in names if len(found[name]) > 1]:
        raise DataError(f'{path} has several images of the same name, in different folders: {listed(several)}')
    return {name: found[name][0] for name in names}


def _usable(data: dict, part: str, found: Findings, test: bool = False) -> dict[Any, dict]:
    """Return the entries of a part whose fields can all be used, by their ids; the others are added to ``found``."""
    values = data.get(part)
    if not isinstance(values, list):
        found.add(f'the list {part!r} is missing')
        return {}
    if not values and not (part == 'annotations' and test):
        found.add(f'{part!r} is empty')
    entries: dict = {}
    for number, value in enumerate(values):
        entry = value if isinstance(value, dict) else {}
        key = entry.get('id', f'number {number}')
        wrong = next((name for name, (_, fits) in FIELDS[part].items() if not fits(entry.get(name))), None)
        if wrong:
            found.add(f'{part} whose {wrong} is missing or not {FIELDS[part][wrong][0]}', key)
        elif key in entries:
            found.add(f'{part} whose id occurs twice', key)
        else:
            entries[key] = entry
    return entries


def _names(categories: dict[int, dict], found: Findings) -> dict[str, int]:
    """Return name -> id."""
    names: dict[str, int] = {}
    for key, entry in categories.items():
        if names.setdefault(entry['name'], key) != key:
            found.add('category names that occur twice', entry['name'])
    return names


def _compare_classes(there: list[str], classes: Sequence[str], found: Findings, given: bool) -> None:
    """Compare the names of the file's categories with the dataset's classes, which the config gives or not."""
    names = [name for name in there if name in classes]
    missing = [name for name in classes if name not in names]
    if not names:
        found.add(f'none of the {len(classes)} classes of the dataset is there; the file has {listed(there)}')
    elif missing and given:
        close = [match for name in missing for match in difflib.get_close_matches(str(name), there, 1)]
        hint = f'did you mean {listed(close)}?' if close else f'the file has {listed(there)}'
        found.add(f'no category has the name {listed(missing)}, which the config gives to a class; {hint}')
    elif missing or names != list(classes):
        what = f'no category exists for {len(missing)} of' if missing else 'another order than that of'
        found.add(
            f"{what} the dataset's {len(classes)} classes: labels follow the file, names the config",
            level='warning',
        )
    for name in there:
        if name not in classes:
            found.add('categories that the dataset does not ask for', name, 'warning')


def _overlap(box: Sequence[float], image: dict) -> bool:
    x, y, width, height = box
    return -width < x < image['width'] and -height < y < image['height']
