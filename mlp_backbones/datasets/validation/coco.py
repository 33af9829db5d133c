"""What is wrong with an annotation file in COCO's format, and the ids that one gives to its categories and images."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ...utils.config import annotation_file, nodes
from ...utils.errors import DataError
from .files import listed

LARGEST = 1e9  # of any coordinate or area, in pixels


def _is_number(value: Any, least: float = -LARGEST) -> bool:
    return type(value) in (int, float) and least <= value < LARGEST  # false for NaN too


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


# What every entry of a file must have, in words and as a test.
NEEDED: dict[str, dict[str, Callable[[dict], bool]]] = {
    'categories': {
        'an integer id': lambda entry: type(entry.get('id')) is int,
        'a name': lambda entry: isinstance(entry.get('name'), str),
    },
    'images': {
        'an integer or string as id': lambda entry: type(entry.get('id')) in (int, str),
        'a file_name': lambda entry: isinstance(entry.get('file_name'), str),
        'a positive width': lambda entry: _is_number(entry.get('width'), 1),
        'a positive height': lambda entry: _is_number(entry.get('height'), 1),
    },
    'annotations': {
        'an integer id': lambda entry: type(entry.get('id')) is int,
        'an integer category_id': lambda entry: type(entry.get('category_id')) is int,
        'an integer or string as image_id': lambda entry: type(entry.get('image_id')) in (int, str),
        'a bbox of four finite numbers, the last two not negative': lambda entry: _is_box(entry.get('bbox')),
        'a finite area': lambda entry: _is_number(entry.get('area')),
    },
}


class Finding(NamedTuple):
    """One kind of problem.

    An *error* is what mmdet fails on or would learn or measure something wrong from; a *warning* is what it leaves out
    by itself.
    """

    level: str  # 'error' or 'warning'
    text: str
    places: list  # the ids of the entries

    def __str__(self) -> str:
        return f'{self.text} ({len(self.places)}: {listed(self.places)})' if self.places else self.text


class _Findings(dict):
    def add(self, text: str, *places: Any, level: str = 'error') -> None:
        self.setdefault(text, Finding(level, text, [])).places.extend(places)


def coco_class(node: dict, scope: str) -> Any:
    """Return the class of a dataset that reads its annotations as mmdet's ``CocoDataset`` does; None for others."""
    if scope != 'mmdet':
        return None
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    kind = node.get('type')
    cls = kind if isinstance(kind, type) else DATASETS.get(str(kind))
    methods = ('COCOAPI', 'load_data_list', 'parse_data_info')
    same = all(getattr(cls, name, None) is getattr(CocoDataset, name) for name in methods)
    return cls if same else None


def annotation_findings(node: dict, cfg: Any, most: float = float('inf')) -> list[Finding]:
    """Find what is wrong with the annotation file of one dataset.

    Args:
        node (dict): The dataset's settings.
        cfg (mmengine.Config): That the dataset is of; its evaluators may read the file too.
        most (float): Larger files, in bytes, are not looked at. Defaults to infinity.

    Returns:
        list[Finding]: Errors and warnings; empty where all is well, or where the format is not COCO's.
    """
    cls, path = coco_class(node, cfg.default_scope), annotation_file(node)
    if cls is None or path is None or not os.path.isfile(path) or os.path.getsize(path) > most:
        return []
    given = (node.get('metainfo') or {}).get('classes')
    classes = given or cls.METAINFO['classes']
    if isinstance(classes, str):  # the path of a list of names
        classes = None
    test = bool(node.get('test_mode'))
    judges = [n.get('ann_file') for key in ('val_evaluator', 'test_evaluator') for n in nodes(cfg.get(key))]
    try:
        return check_coco(read_json(path), classes, bool(given), test, test and any(judges))
    except DataError as error:
        return [Finding('error', str(error), [])]


def read_json(path: str | os.PathLike) -> object:
    """Read a JSON file, or raise DataError where it cannot be read, or is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f'{path} is not a COCO annotation file: {type(error).__name__}: {error}') from error


def check_coco(
    data: Any,
    classes: Sequence[str] | None = None,
    given: bool = False,
    test: bool = False,
    judged: bool = False,
) -> list[Finding]:
    """Find what is wrong with the content of a COCO annotation file; masks are for pycocotools to read.

    Args:
        data (object): What the file holds.
        classes (Sequence[str], optional): The class names that the dataset asks for. Without, any will do.
        given (bool): The config names the classes, so that one without a category is an error. Defaults to False: they
            are those of a public dataset.
        test (bool): The file is going to be evaluated on, and need not have annotations. Defaults to False.
        judged (bool): By pycocotools, which reads the file itself. Defaults to False.
    """
    found = _Findings()
    categories, images, annotations = (_usable(data, part, found, test) for part in NEEDED)
    names = _names(categories, found)
    if classes and names:
        _compare_classes(list(names), classes, found, given)
    for key, entry in annotations.items() if categories and images else ():  # or every annotation would be wrong
        x, y, width, height = entry['bbox']
        image = images.get(entry['image_id'])
        if entry['category_id'] not in categories:
            found.add('annotations of a category that the file does not have', key)
        elif image is None:
            found.add('annotations of an image that the file does not have', key)
        elif judged and entry.get('iscrowd') not in (0, 1):
            found.add('annotations without an iscrowd of 0 or 1, which the evaluation needs', key)
        elif min(width, height) < 1 or entry['area'] <= 0:
            found.add('boxes of less than one pixel, which are left out', key, level='warning')
        elif not (-width < x < image['width'] and -height < y < image['height']):
            found.add('boxes wholly outside of their image', key)
    if test and 0 in annotations:
        found.add('annotations with the id 0, which the evaluation counts as missed', 0, level='warning')
    return list(found.values())


def _usable(data: Any, part: str, found: _Findings, test: bool = False) -> dict[Any, dict]:
    """Return the entries of a part whose fields can all be used, by their ids; the others are added to ``found``."""
    values = data.get(part) if isinstance(data, dict) else None
    if not isinstance(values, list):
        found.add(f'the list {part!r} is missing')
        return {}
    if not values and not (part == 'annotations' and test):
        found.add(f'{part!r} is empty')
    entries: dict = {}
    for number, value in enumerate(values):
        entry = value if isinstance(value, dict) else {}
        key = entry.get('id', f'number {number}')
        missing = next((what for what, has in NEEDED[part].items() if not has(entry)), None)
        if missing:
            found.add(f'{part} without {missing}', key)
        elif key in entries:
            found.add(f'{part} whose id occurs twice', key)
        else:
            entries[key] = entry
    return entries


def _names(categories: dict[int, dict], found: _Findings) -> dict[str, int]:
    """Return name -> id."""
    names: dict[str, int] = {}
    for key, entry in categories.items():
        if names.setdefault(entry['name'], key) != key:
            found.add('category names that occur twice', entry['name'])
    return names


def _compare_classes(there: list[str], classes: Sequence[str], found: _Findings, given: bool) -> None:
    """Compare the names of the file's categories with the dataset's classes, which the config gives or not."""
    names = [name for name in there if name in classes]
    missing = [name for name in classes if name not in names]
    if not names or missing and given:
        found.add(f'no category has the name {listed(missing)} of a class of the dataset; the file has {listed(there)}')
    elif names != list(classes):
        what = f'no category exists for {len(missing)} of' if missing else 'another order than that of'
        text = f"{what} the dataset's {len(classes)} classes: labels follow the file, names the config"
        found.add(text, level='warning')
    if others := [name for name in there if name not in classes]:
        found.add('categories that the dataset does not ask for', *others, level='warning')


def category_ids(data: Any, path: str | os.PathLike = 'the annotation file') -> dict[str, int]:
    """Return the id of every category of a COCO file, by its name, in the file's order, which is that of the labels.

    Raises:
        DataError: The categories cannot be used; ``path`` is for its message.
    """
    found = _Findings()
    ids = _names(_usable(data, 'categories', found), found)
    if found:
        raise DataError(f'{path}: {"; ".join(map(str, found.values()))}')
    return ids


def ids_of_classes(data: Any, classes: Sequence[str], path: str | os.PathLike) -> list[int]:
    """Return the category ids of a model's classes, in its order; ``path`` is for messages.

    Raises:
        DataError: A class is not a category of the file.
    """
    ids = category_ids(data, path)
    if missing := [name for name in classes if name not in ids]:
        raise DataError(f'{path} has no category for the classes {listed(missing)} of the model, only {listed([*ids])}')
    return [ids[name] for name in classes]


def ids_of_images(data: Any, names: Sequence[str], path: str | os.PathLike) -> dict[str, int]:
    """Return the image ids of files, by their names without folders; ``path`` is for messages.

    Raises:
        DataError: A name is not in the file, or there several times, in different folders.
    """
    found: dict[str, list[int]] = {}
    try:
        for image in data['images']:
            found.setdefault(PurePosixPath(image['file_name']).name, []).append(image['id'])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} needs a list 'images', each with an id and a file_name") from error
    if missing := [name for name in names if name not in found]:
        raise DataError(f'{path} does not have {len(missing)} of the {len(names)} files: {listed(missing)}')
    if several := [name for name in names if len(found[name]) > 1]:
        raise DataError(f'{path} has several images of the same name, in different folders: {listed(several)}')
    return {name: found[name][0] for name in names}
