"""From a dataset's settings in a config to what is wrong with its annotation file."""

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .coco import check_coco, looks_whole, read_json
from .files import DataError, Finding, Findings, short


def nodes(value: Any) -> Iterator[dict]:
    """Every dict inside a config value, outermost first."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from nodes(child)


def dataset_nodes(value: Any) -> Iterator[dict]:
    """The settings of every dataset with a pipeline of its own inside a config value."""
    return (node for node in nodes(value) if 'type' in node and 'pipeline' in node)


def dataset_class(node: dict, scope: str) -> type | None:
    """The class that a dataset's settings name, or None where there is none."""
    kind = node.get('type')
    if isinstance(kind, type):
        return kind
    try:
        return importlib.import_module(f'{scope}.registry').DATASETS.get(str(kind))
    except (ImportError, KeyError, ValueError):
        return None


def kind_of(cls: Any) -> str | None:
    """'coco', 'segmentation' or 'classification', by what a dataset's class inherits from; None for others."""
    ancestors = {f'{c.__module__.split(".")[0]}.{c.__name__}': c for c in getattr(cls, '__mro__', ())}
    if coco := ancestors.get('mmdet.CocoDataset'):
        plain = cls.parse_data_info is coco.parse_data_info and cls.load_data_list is coco.load_data_list
        return 'coco' if plain and cls.COCOAPI is coco.COCOAPI else None
    if 'mmseg.BaseSegDataset' in ancestors:
        return 'segmentation'
    return 'classification' if 'mmpretrain.CustomDataset' in ancestors else None


def class_names(node: dict, cls: type | None) -> Sequence[str] | None:
    """The class names that a dataset's settings, or its class, give."""
    names = (node.get('metainfo') or {}).get('classes') or node.get('classes')
    names = names or getattr(cls, 'METAINFO', {}).get('classes')
    return None if isinstance(names, str) else names


def annotation_file(node: dict) -> str | None:
    """The path of a dataset's annotation file, or None."""
    path = node.get('ann_file')
    return os.path.join(node.get('data_root') or '', path) if isinstance(path, str) and path else None


def place_of(node: dict) -> str:
    """The path of a dataset's annotation file; without one, that of its folder."""
    prefix = node.get('data_prefix') or node.get('split') or ''
    prefix = next(iter(prefix.values()), '') if isinstance(prefix, dict) else prefix
    return annotation_file(node) or os.path.join(node.get('data_root') or '', prefix or '')


def annotation_findings(node: dict, scope: str, most: int | None = None) -> list[Finding]:
    """What is wrong with the annotation file of one dataset.

    Args:
        node (dict): The dataset's settings.
        scope (str): The framework, such as 'mmdet'.
        most (int, optional): Of a larger JSON file, in bytes, only the first and last bytes are looked at.

    Returns:
        list[Finding]: Errors and warnings; empty where all is well, or where the format is none that is known here.
    """
    cls, path = dataset_class(node, scope), annotation_file(node)
    kind = kind_of(cls)
    if kind is None or path is None or not os.path.isfile(path):
        return []
    if kind != 'coco':
        names = class_names(node, cls)
        labelled = kind == 'classification' and node.get('with_label', True)
        return check_list(path, labelled, None if names is None else len(names))
    try:
        if most is not None and os.path.getsize(path) > most:
            return [] if looks_whole(path) else [Finding('error', 'the file is cut short, or no JSON')]
        return coco_findings(read_json(path), node, cls)
    except (DataError, OSError) as error:
        return [Finding('error', str(error))]


def coco_findings(data: object, node: dict, cls: type | None) -> list[Finding]:
    """What is wrong with the content of a COCO file for the dataset that is going to load it."""
    masks = any(t.get('with_mask') for t in node.get('pipeline') or [] if isinstance(t, dict))
    return check_coco(data, class_names(node, cls), masks, bool(node.get('test_mode')))


def check_list(path: str | os.PathLike, labelled: bool, num_classes: int | None = None) -> list[Finding]:
    """What is wrong with a text file that names a sample on each line, with its label at the end or without."""
    found = Findings()
    try:
        lines = Path(path).read_bytes().decode().removesuffix('\n').split('\n')  # as mmengine does
    except (OSError, UnicodeDecodeError) as error:
        found.add(f'is no list in text: {error}')
        return found.list()
    if not any(line.strip() for line in lines):
        found.add('is empty')
    labels = set()
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        where = f'{number}: {short(line)}'
        if not line.strip() or '\0' in line:
            found.add('lines without a name', number)
        elif labelled and not (name and label.isascii() and label.isdigit() and len(label) < 10):
            found.add('lines that are not a name, a blank and a label', where)
        elif labelled and num_classes is not None and int(label) >= num_classes:
            found.add(f'labels that are not below the number of classes, {num_classes}', where)
        elif labelled:
            labels.add(int(label))
    if labelled and num_classes is not None and not found.list() and len(labels) < num_classes:
        found.add(f'{num_classes - len(labels)} of the {num_classes} classes have no image', level='warning')
    return found.list()
