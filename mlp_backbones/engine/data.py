"""The datasets of a config, and a config that follows the data that it points to."""

import os
from collections.abc import Iterator

from ..datasets.validation.coco import category_ids, read_json
from ..utils.cli import say
from ..utils.config import annotation_file, class_heads, dataset_nodes, nodes
from ..utils.errors import DataError
from .config import class_name


def datasets_of(cfg, train: bool) -> Iterator[tuple[str, dict]]:
    """Yield the dataloader's name and the settings of every dataset of a training, or of a test."""
    for name in ('train_dataloader', 'val_dataloader') if train else ('test_dataloader',):
        for node in dataset_nodes((cfg.get(name) or {}).get('dataset')):
            yield name, node


def adapt_to_data(cfg) -> None:
    """Let a config follow its data: draw the shapes, take a user's own classes; both are printed."""
    shapes = cfg.get('shapes')
    if shapes and cfg.get('data_root') == shapes['root']:
        from ..datasets import make_shapes

        make_shapes(shapes['root'], shapes['task'], exist_ok=True)
    adopt_categories(cfg)


def adopt_categories(cfg) -> None:
    """Take the classes from the annotation file where a COCO-format folder has classes of its own.

    Only for ``CocoDataset`` without ``metainfo``, when the file has none of COCO's class names: what would otherwise
    be an empty dataset becomes the user's.
    """
    loaders = [cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]
    datasets = [node for node in nodes(loaders) if class_name(node) == 'CocoDataset']
    paths = [path for node in datasets if (path := annotation_file(node)) and os.path.isfile(path)]
    if not paths or any(node.get('metainfo') for node in datasets):
        return
    from mmdet.datasets import CocoDataset

    path = min(paths, key=os.path.getsize)  # any of them tells; COCO's training file is half a gigabyte
    try:
        ids = category_ids(read_json(path))
    except DataError:  # for the check of the annotations to say
        return
    names, known = tuple(ids), CocoDataset.METAINFO['classes']
    if set(names) & set(known):
        return
    # A head that counts the classes of the dataset has as many as COCO so far; any other number is somebody's choice.
    heads = {place: head for place, head in class_heads(cfg.model) if head['num_classes'] == len(known)}
    for head in heads.values():
        head['num_classes'] = len(names)
    for node in datasets:
        node['metainfo'] = dict(classes=names, category_ids=tuple(ids.values()))  # kept with the weights
    said = f', and num_classes becomes {len(names)} in {", ".join(heads)}' if heads else ''
    say(f'{path} has classes of its own, {", ".join(names)}: the dataset takes these {len(names)}{said}.')
