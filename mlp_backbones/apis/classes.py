"""The names, colors and ids of a model's classes, from wherever they are known."""

import colorsys
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.runs import classes_of
from ..utils.config import dataset_nodes

# Of the numbers 1 to 90, those that a category has.
COCO_IDS = [n for n in range(1, 91) if n not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def describe_classes(cfg, model: torch.nn.Module, content: Any) -> dict[str, Any]:
    """Return what is known of a model's classes, from where as many are named as it has.

    Args:
        cfg (mmengine.Config): The model's.
        model (torch.nn.Module): The model.
        content (Any): Its checkpoint, as ``read_checkpoint`` gave it.

    Returns:
        dict[str, Any]: As ``Predictor`` takes it. Names that are not known are numbers, colors are made up, and ids
        are COCO's for its own classes, else 1, 2, 3.
    """
    head = getattr(model, 'roi_head', model)
    number = next(h for n in ('bbox_head', 'decode_head', 'head') if (h := getattr(head, n, None))).num_classes
    metas = [meta for meta in _metas(cfg, content) if len(meta.get('classes') or ()) == number]
    classes = tuple(map(str, metas[0]['classes'] if metas else range(number)))

    def first(key: str) -> list:
        values = (meta.get(key) or () for meta in metas if tuple(meta['classes']) == classes)
        return next((list(value) for value in values if len(value) == number), [])

    hues = (i * 0.618034 % 1 for i in range(number))
    colors = [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.75, 0.95)) for hue in hues]
    palette = [tuple(color) for color in first('palette')] or colors
    known = importlib.import_module('mmdet.datasets').CocoDataset.METAINFO if cfg.default_scope == 'mmdet' else {}
    ids = COCO_IDS if known.get('classes') == classes else first('category_ids') or list(range(1, number + 1))
    return dict(classes=classes, palette=palette, category_ids=ids)


def _metas(cfg, content: Any) -> Iterator[dict[str, Any]]:
    """Yield what describes classes: a checkpoint, then the config's dataset, then that one's class."""
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    dataset = next(dataset_nodes(cfg.get('test_dataloader')), {})
    importlib.import_module(f'{cfg.default_scope}.datasets')
    cls = importlib.import_module(f'{cfg.default_scope}.registry').DATASETS.get(dataset.get('type', ''))
    # The frameworks before mmengine kept CLASSES and PALETTE in the meta itself.
    own = classes_of(content).get('dataset_meta')
    for found in (own, meta, dataset.get('metainfo'), dataset, getattr(cls, 'METAINFO', {})):
        found = {k.lower(): v.tolist() if hasattr(v, 'tolist') else v for k, v in (found or {}).items()}
        found = {key: value for key, value in found.items() if isinstance(value, (str, list, tuple))}
        if isinstance(found.get('classes'), str):
            file = Path(found['classes'])
            found['classes'] = file.read_text().splitlines() if file.is_file() else ()
        yield found
