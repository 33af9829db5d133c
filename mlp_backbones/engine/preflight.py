"""Checks of a run before it starts: a config in, problems out; nothing is changed."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..datasets.validation.coco import annotation_findings
from ..datasets.validation.files import listed
from ..utils.config import annotation_file, class_heads, dataset_nodes, nodes, place_of
from ..utils.errors import UserError
from .config import class_name, inherited
from .data import datasets_of

LARGE = 64 << 20  # bytes of an annotation file that takes about two seconds to check; COCO's is half a gigabyte


def problems(cfg, train: bool) -> Iterator[UserError | UserWarning]:
    """Find what cannot work in a run, or will not do what was meant; nothing is changed.

    Args:
        cfg (mmengine.Config): Adapted to its data, see ``adapt_to_data``.
        train (bool): Whether the run trains, or only tests.

    Yields:
        UserError | UserWarning: An error where the run would fail, or learn something wrong.
    """
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper') if train else ('test_dataloader', 'test_cfg'):
        if not cfg.get(part):
            yield UserError(f'{cfg.filename} has no {part}, so it cannot be {"trained" if train else "tested"}')
    yield from missing_data(cfg, train)
    yield from annotation_problems(cfg, train)
    yield from top_k_problems(cfg, train)
    if train:
        yield from class_count_problems(cfg)
        yield from unused_settings(cfg)
        yield from unadapted_weights(cfg)


def missing_data(cfg, train: bool) -> Iterator[UserError]:
    """Find folders and files of datasets that do not exist."""
    for loader, dataset in datasets_of(cfg, train):
        if class_name(dataset).startswith('CIFAR'):
            continue  # mmpretrain downloads these by itself
        root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
        folders = [*(prefix.values() if isinstance(prefix, dict) else [prefix])]
        if class_name(dataset).endswith('ImageNet'):
            folders.append(dataset.get('split'))
        wanted = [root, annotation_file(dataset), *(os.path.join(root, folder) for folder in folders if folder)]
        paths = [path for path in dict.fromkeys(wanted) if path and '://' not in path]
        if not all(map(os.path.exists, paths)):
            there = '\n'.join(f'  {"exists " if os.path.exists(path) else "missing"}  {path}' for path in paths)
            yield UserError(
                f'the data of {loader} ({dataset["type"]}) does not exist:\n{there}\n'
                'Point to it with --cfg-options data_root=FOLDER, or link it to the path above. To try the models '
                'without a dataset, run a config whose name ends in _shapes.py.'
            )


def annotation_problems(cfg, train: bool) -> Iterator[UserError | UserWarning]:
    """Find COCO annotation files of up to ``LARGE`` that mmdet would fail on, or learn something wrong from."""
    for loader, dataset in datasets_of(cfg, train) if cfg.get('check_annotations', True) else ():
        path, findings = annotation_file(dataset), annotation_findings(dataset, cfg, LARGE)
        if errors := [f'  {finding}' for finding in findings if finding.level == 'error']:
            yield UserError(
                '\n'.join([f'{loader}: {path} cannot be used:', *errors])
                + '\nCorrect the file or the config; or start all the same with --cfg-options check_annotations=False.'
            )
        for finding in findings:
            if finding.level == 'warning':
                yield UserWarning(f'{loader}: {path}: {finding}')


def class_count_problems(cfg) -> Iterator[UserError]:
    """Find heads for fewer classes than the config names for the training data, or than it has folders of classes."""
    for dataset in dataset_nodes(cfg.train_dataloader.get('dataset')):
        names, folder = list((dataset.get('metainfo') or {}).get('classes') or []), Path(place_of(dataset))
        if class_name(dataset) in ('CustomDataset', 'ImageNet') and folder.is_dir():
            names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if cfg.default_scope == 'mmseg' and len(names) == 2:
            continue  # a head of one class, with a sigmoid, tells two apart
        few = {place: n for place, head in class_heads(cfg.model) if (n := head['num_classes']) < len(names)}
        if few:
            have = ' and '.join(f'{place}.num_classes is {number}' for place, number in few.items())
            options = ' '.join(f'{place}.num_classes={len(names)}' for place in few)
            yield UserError(
                f'train_dataloader: the data has {len(names)} classes ({listed(names)}), but {have}: set --cfg-options '
                f'{options}, or the same in the config'
            )


def top_k_problems(cfg, train: bool) -> Iterator[UserError]:
    """Find accuracies that a few classes cannot have; mmpretrain fails on them after the first epoch."""
    head, part = cfg.model.get('head'), f'{"val" if train else "test"}_evaluator'
    number = head.get('num_classes') if isinstance(head, dict) else None
    for node in nodes(cfg.get(part)):
        top = node.get('topk', 1)
        if class_name(node) == 'Accuracy' and number and max(top if isinstance(top, tuple | list) else [top]) > number:
            yield UserError(f'{part}.topk is {top}, but there are {number} classes: set {part}.topk=(1,)')


def unused_settings(cfg) -> Iterator[UserWarning]:
    """Find what was set and will have no effect: a pipeline of no dataset, the end of a schedule after the run's.

    A pipeline that was merely inherited is nobody's mistake.
    """
    used = [node.get('pipeline') for node in nodes([v for k, v in cfg.items() if k.endswith('_dataloader')])]
    for name in ('train_pipeline', 'test_pipeline', 'val_pipeline'):
        if cfg.get(name) and cfg[name] not in used and cfg[name] not in inherited(cfg.filename, name):
            loader = name.replace('pipeline', 'dataloader')
            yield UserWarning(
                f'no dataset has the {name} of the config, so it is not used: datasets hold pipelines of their own. '
                f'Set {loader} = dict(dataset=dict(pipeline={name})) as well.'
            )
    unit = 'epoch' if cfg.train_cfg.get('max_epochs') else 'iter'
    length = cfg.train_cfg.get(f'max_{unit}s') or float('inf')
    for scheduler in nodes(cfg.get('param_scheduler')):
        last = max([scheduler.get('end') or 0, *scheduler.get('milestones', ())])
        if scheduler.get('by_epoch', True) == (unit == 'epoch') and last > length:
            yield UserWarning(
                f'the run ends after {unit} {length}, the learning rate of {class_name(scheduler)} is scheduled up to '
                f'{last}. See "A shorter run" in docs/training.md.'
            )


def unadapted_weights(cfg) -> Iterator[UserError]:
    """Find weights that mmengine would load without saying what of the backbone they do not fill."""
    ours = str(cfg.model.backbone.get('type')).startswith('mlp_backbones.')
    loads = cfg.get('load_from') and not cfg.get('resume')
    if ours and loads and 'adapt_checkpoint' not in cfg.get('default_hooks', {}):
        yield UserError(
            "load_from needs a hook that fills the backbone from any release's file, or refuses it: set --cfg-options "
            'default_hooks.adapt_checkpoint.type=mlp_backbones.AdaptCheckpointHook, or the same in the config. '
            '(default_hooks.adapt_checkpoint=None loads what fits, as mmengine does.)'
        )
