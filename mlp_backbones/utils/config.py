"""Traverse a config, and find its datasets."""

import os
from collections.abc import Iterator
from typing import Any


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


def annotation_file(node: dict) -> str | None:
    """Return the path of a dataset's annotation file, or None."""
    path = node.get('ann_file')
    return os.path.join(node.get('data_root') or '', path) if isinstance(path, str) and path else None


def place_of(node: dict) -> str:
    """Return the path of a dataset's annotation file; without one, that of its folder."""
    prefix = node.get('data_prefix') or node.get('split') or ''
    prefix = next(iter(prefix.values()), '') if isinstance(prefix, dict) else prefix
    return annotation_file(node) or os.path.join(node.get('data_root') or '', prefix or '')
