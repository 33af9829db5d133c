"""From a dataset's settings in a config to what is wrong with its annotation file."""

import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ...utils.errors import DataError
from .coco import check_coco, looks_whole, read_json
from .files import Finding


def nodes(value: Any) -> Iterator[dict]:
    """Yield every dict inside a config value, outermost first."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        yield from nodes(child)


def dataset_nodes(value: Any) -> Iterator[dict]:
    """Return the settings of every dataset with a pipeline of its own inside a config value."""
    return (node for node in nodes(value) if 'type' in node and 'pipeline' in node)


def class_heads(value: Any, place: str = 'model') -> Iterator[tuple[str, dict]]:
    """Yield (place, settings) of every part of a model whose ``num_classes`` counts the classes of the data.

    As mmdet's ``NumClassCheckHook`` has it, a region proposal network and a head of semantic segmentation beside a
    detector do not count them; neither do a backbone, a mask head that is the same for all, and auxiliary heads of
    mmseg, some of which tell borders from the rest.
    """
    if isinstance(value, dict):
        if type(value.get('num_classes')) is int and not value.get('class_agnostic'):
            yield place, value
        for key, child in value.items():
            if not str(key).endswith(('backbone', 'rpn_head', 'semantic_head', 'auxiliary_head')):
                yield from class_heads(child, f'{place}.{key}')
    elif isinstance(value, (list, tuple)):
        for number, child in enumerate(value):
            yield from class_heads(child, f'{place}.{number}')


def dataset_class(node: dict, scope: str) -> type | None:
    """Return the class that a dataset's settings name, or None."""
    kind = node.get('type')
    if isinstance(kind, type):
        return kind
    try:
        return importlib.import_module(f'{scope}.registry').DATASETS.get(str(kind))
    except (ImportError, KeyError, ValueError):
        return None


def kind_of(cls: Any) -> str | None:
    """Return 'coco', 'segmentation' or 'classification', by what a dataset's class inherits from; None for others."""
    ancestors = {f'{c.__module__.split(".")[0]}.{c.__name__}': c for c in getattr(cls, '__mro__', ())}
    if coco := ancestors.get('mmdet.CocoDataset'):
        plain = cls.parse_data_info is coco.parse_data_info and cls.load_data_list is coco.load_data_list
        return 'coco' if plain and cls.COCOAPI is coco.COCOAPI else None
    if 'mmseg.BaseSegDataset' in ancestors:
        return 'segmentation'
    return 'classification' if 'mmpretrain.CustomDataset' in ancestors else None


def class_names(node: dict, cls: type | None) -> Sequence[str] | None:
    """Return the class names that a dataset's settings, or its class, give."""
    names = (node.get('metainfo') or {}).get('classes') or node.get('classes')
    names = names or getattr(cls, 'METAINFO', {}).get('classes')
    return None if isinstance(names, str) else names


def annotation_file(node: dict) -> str | None:
    """Return the path of a dataset's annotation file, or None."""
    path = node.get('ann_file')
    return os.path.join(node.get('data_root') or '', path) if isinstance(path, str) and path else None


def place_of(node: dict) -> str:
    """Return the path of a dataset's annotation file; without one, that of its folder."""
    prefix = node.get('data_prefix') or node.get('split') or ''
    prefix = next(iter(prefix.values()), '') if isinstance(prefix, dict) else prefix
    return annotation_file(node) or os.path.join(node.get('data_root') or '', prefix or '')


def annotation_findings(node: dict, scope: str, most: int | None = None) -> list[Finding]:
    """Find what is wrong with the annotation file of one dataset.

    Args:
        node (dict): The dataset's settings.
        scope (str): The framework, such as 'mmdet'.
        most (int, optional): Of a larger file, in bytes, only the first and last bytes are looked at.

    Returns:
        list[Finding]: Errors and warnings; empty where all is well, or where the format is not COCO's.
    """
    cls, path = dataset_class(node, scope), annotation_file(node)
    if kind_of(cls) != 'coco' or path is None or not os.path.isfile(path):
        return []
    if most is not None and os.path.getsize(path) > most:
        return [] if looks_whole(path) else [Finding('error', 'the file is cut short, or not JSON')]
    given = bool((node.get('metainfo') or {}).get('classes'))
    try:
        return check_coco(read_json(path), class_names(node, cls), given, bool(node.get('test_mode')))
    except DataError as error:
        return [Finding('error', f'{error}')]
