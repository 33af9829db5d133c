"""What can be told of a run before it starts: a config in, problems out; nothing is changed."""

import os
from collections.abc import Iterator
from pathlib import Path

from ..datasets.validation.coco import annotation_findings, category_ids, coco_class, read_json
from ..datasets.validation.files import listed
from ..utils.config import annotation_file, class_heads, nodes, place_of
from ..utils.errors import DataError, Error, UserError
from .config import Problem, check_framework, class_name, inherited, load_config, report
from .data import datasets_of

LARGE = 64 << 20  # bytes of an annotation file that takes about two seconds to check; COCO's is half a gigabyte


def load_model_config(path: str | Path):
    """As ``load_config``, for tools that build the model: its framework and its backbone are checked too."""
    cfg = load_config(path)
    check_framework(cfg, str(path))
    if not cfg.model.get('backbone'):
        raise UserError(f'the model of {path} has no backbone')
    report(backbone_problems(cfg))
    return cfg


def backbone_problems(cfg) -> Iterator[Problem]:
    """Build the backbone without memory or weights, so that a wrong argument is reported first and alone."""
    import torch

    from ..registry import MODELS

    backbone = dict(cfg.model.get('backbone') or {})
    name = str(backbone.pop('type', ''))
    cls = MODELS.get(name if name.startswith('mlp_backbones.') else f'mlp_backbones.{name}') if name else None
    if cls is None:
        if name.startswith('mlp_backbones.'):
            names = ', '.join(sorted(f'mlp_backbones.{n}' for n in MODELS.module_dict))
            yield Problem.error(f'model.backbone.type is {name!r}; this package has {names}')
        return
    try:
        with torch.device('meta'):
            built = cls(**backbone)
    except Error as error:
        yield Problem.error(f'model.backbone does not fit: {error}')
        return
    except TypeError as error:
        hint = 'If another backbone was inherited, replace its settings: backbone=dict(_delete_=True, ...)'
        yield Problem.error(f'model.backbone does not fit: {error}. {hint}')
        return
    necks = cfg.model.get('neck') or {}
    neck = necks[0] if isinstance(necks, list) and necks else necks
    wanted = neck.get('in_channels') if isinstance(neck, dict) else None
    if class_name(neck).endswith('FPN') and isinstance(wanted, list | tuple) and tuple(wanted) != built.out_channels:
        yield Problem.error(
            f'model.neck.in_channels is {list(wanted)}, but the backbone gives {list(built.out_channels)} '
            f'(out_indices={list(built.out_indices)})'
        )


def problems(cfg, train: bool) -> Iterator[Problem]:
    """Find what cannot work in a run, or will not do what was meant; nothing is changed.

    Args:
        cfg (mmengine.Config): Adapted to its data, see ``adapt_to_data``.
        train (bool): Whether the run trains, or only tests.

    Yields:
        Problem: Certain where the run would fail, or learn something wrong.
    """
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper') if train else ('test_dataloader', 'test_cfg'):
        if not cfg.get(part):
            yield Problem.error(f'{cfg.filename} has no {part}, so it cannot be {"trained" if train else "tested"}')
    yield from missing_data(cfg, train)
    if train:
        yield from class_count_problems(cfg)
    yield from annotation_problems(cfg, train)
    yield from class_folder_problems(cfg, train)
    yield from top_k_problems(cfg, train)
    if train:
        yield from unused_settings(cfg)
        yield from unadapted_weights(cfg)


def missing_data(cfg, train: bool) -> Iterator[Problem]:
    """Find folders and files of datasets that do not exist."""
    for loader, dataset in datasets_of(cfg, train):
        if class_name(dataset).startswith('CIFAR'):
            continue  # mmpretrain downloads these by itself
        root = dataset.get('data_root') or ''
        paths = [root]
        if path := annotation_file(dataset):
            paths.append(path)
        prefix = dataset.get('data_prefix') or {}
        prefixes = prefix.values() if isinstance(prefix, dict) else [prefix]
        paths += [os.path.join(root, p) for p in prefixes if isinstance(p, str)]
        if class_name(dataset).endswith('ImageNet') and dataset.get('split'):
            paths.append(os.path.join(root, dataset['split']))
        lost = [p for p in paths if p and '://' not in p and not os.path.exists(p)]
        if lost:
            wanted = '\n'.join(f'  {"missing" if p in lost else "exists "}  {p}' for p in dict.fromkeys(paths) if p)
            yield Problem.error(
                f'the data of {loader} ({dataset["type"]}) does not exist:\n{wanted}\n'
                'Point to it with --cfg-options data_root=FOLDER, or link it to the path above. To try the models '
                'without a dataset, run a config whose name ends in _shapes.py.',
            )


def class_count_problems(cfg) -> Iterator[Problem]:
    """Find heads for fewer classes than the training data has, which is certain, and for more."""
    scope = cfg.get('default_scope')
    heads = {place: head['num_classes'] for place, head in class_heads(cfg.model)}
    for loader, dataset in datasets_of(cfg, train=True) if scope in ('mmdet', 'mmseg') and heads else ():
        if loader != 'train_dataloader':
            continue
        names = _class_names(dataset, scope, min(heads.values()))
        binary = scope == 'mmseg' and len(names) == 2  # a head of one class, with a sigmoid, tells two apart
        few = {place: n for place, n in heads.items() if n < len(names) and not (binary and n == 1)}
        if few:
            have = ' and '.join(f'{place}.num_classes is {number}' for place, number in few.items())
            options = ' '.join(f'{place}.num_classes={len(names)}' for place in few)
            yield Problem.error(
                f'{loader}: the data has {len(names)} classes ({listed(names)}), but {have}: set --cfg-options '
                f'{options}, or the same in the config',
            )
        for place, number in heads.items():
            if names and number > len(names):
                yield Problem.warning(
                    f'{place}.num_classes is {number}, but {loader} has {len(names)} classes ({listed(names)}): '
                    f'the others are never learned.',
                )


def _class_names(dataset: dict, scope: str, fewest: int) -> list[str]:
    """Return the classes that the labels of a dataset can have, as far as they are certain; empty where they are not.

    Where only the dataset's class names them, the data need not have them all: a COCO file is asked, if it matters
    because a head is for ``fewest`` of them.
    """
    if given := (dataset.get('metainfo') or {}).get('classes'):
        return list(given) if isinstance(given, list | tuple) else []
    cls, path = coco_class(dataset, scope), annotation_file(dataset)
    known = cls.METAINFO['classes'] if cls else ()
    if fewest >= len(known) or path is None:
        return []
    try:
        return [name for name in category_ids(read_json(path)) if name in known]
    except DataError:  # said by the check of the annotations
        return []


def annotation_problems(cfg, train: bool) -> Iterator[Problem]:
    """Find COCO annotation files of up to ``LARGE`` that mmdet would fail on, or learn something wrong from."""
    for loader, dataset in datasets_of(cfg, train) if cfg.get('check_annotations', True) else ():
        path = annotation_file(dataset)
        findings = annotation_findings(dataset, cfg.get('default_scope'), LARGE)
        if errors := [f'  {finding}' for finding in findings if finding.level == 'error']:
            yield Problem.error(
                '\n'.join([f'{loader}: {path} cannot be used:', *errors])
                + '\nCorrect the file or the config; or start all the same with --cfg-options check_annotations=False.',
            )
        for finding in findings:
            if finding.level == 'warning':
                yield Problem.warning(f'{loader}: {path}: {finding}')


def _classifier_classes(cfg) -> int | None:
    """Return how many classes the head of a classifier has; None for other models."""
    head = cfg.model.get('head') if cfg.get('default_scope') == 'mmpretrain' else None
    number = head.get('num_classes') if isinstance(head, dict) else None
    return number if type(number) is int else None


def class_folder_problems(cfg, train: bool) -> Iterator[Problem]:
    """Find more folders of classes than a classifier has classes."""
    number = _classifier_classes(cfg)
    if number is None:
        return
    for loader, dataset in datasets_of(cfg, train):
        folder = place_of(dataset)
        if annotation_file(dataset) or class_name(dataset) not in ('CustomDataset', 'ImageNet'):
            continue
        classes = sorted(e.name for e in os.scandir(folder) if e.is_dir()) if os.path.isdir(folder) else []
        if len(classes) > number:
            yield Problem.error(
                f'{loader}: {folder} has {len(classes)} folders, one for each class, but model.head.num_classes is '
                f'{number}: {", ".join(classes[:5])}{", ..." if len(classes) > 5 else ""}',
            )


def top_k_problems(cfg, train: bool) -> Iterator[Problem]:
    """Find accuracies that a few classes cannot have; mmpretrain fails on them after the first epoch."""
    number = _classifier_classes(cfg)
    if number is None:
        return
    part = f'{"val" if train else "test"}_evaluator'
    for node in nodes(cfg.get(part)):
        given = node.get('topk')
        ranks = [k for k in (given if isinstance(given, list | tuple) else [given]) if type(k) is int]
        if class_name(node) == 'Accuracy' and max(ranks, default=0) > number:
            yield Problem.error(f'{part}.topk is {given}, but there are {number} classes: set {part}.topk=(1,)')


def unused_settings(cfg) -> Iterator[Problem]:
    """Find what was set and will have no effect: a pipeline of no dataset, the end of a schedule after the run's.

    A pipeline that was merely inherited is nobody's mistake.
    """
    used = [n.get('pipeline') for n in nodes([v for k, v in cfg.items() if k.endswith('_dataloader')])]
    for name in ('train_pipeline', 'test_pipeline', 'val_pipeline'):
        if cfg.get(name) and cfg[name] not in used and cfg[name] not in inherited(cfg.filename, name):
            loader = name.replace('pipeline', 'dataloader')
            yield Problem.warning(
                f'no dataset has the {name} of the config, so it is not used: datasets hold pipelines of their own. '
                f'Set {loader} = dict(dataset=dict(pipeline={name})) as well.',
            )
    unit = 'epoch' if cfg.train_cfg.get('max_epochs') else 'iter'
    length = cfg.train_cfg.get(f'max_{unit}s')
    for scheduler in nodes(cfg.get('param_scheduler')):
        ends = scheduler.get('end') or scheduler.get('milestones')
        last = max((n for n in (ends if isinstance(ends, list | tuple) else [ends]) if type(n) is int), default=0)
        known = type(length) is int and 'type' in scheduler
        if known and scheduler.get('by_epoch', True) == (unit == 'epoch') and last > length:
            yield Problem.warning(
                f'the run ends after {unit} {length}, the learning rate of {class_name(scheduler)} is scheduled up to '
                f'{last}. See "A shorter run" in docs/training.md.',
            )


def unadapted_weights(cfg) -> Iterator[Problem]:
    """Find weights that mmengine would load without saying what of the backbone they do not fill."""
    ours = str((cfg.model.get('backbone') or {}).get('type')).startswith('mlp_backbones.')
    hooks = cfg.get('default_hooks') or {}
    if cfg.get('load_from') and not cfg.get('resume') and ours and 'adapt_checkpoint' not in hooks:
        yield Problem.error(
            "load_from needs a hook that fills the backbone from any release's file, or refuses it: set --cfg-options "
            'default_hooks.adapt_checkpoint.type=mlp_backbones.AdaptCheckpointHook, or the same in the config. '
            '(default_hooks.adapt_checkpoint=None loads what fits, as mmengine does.)',
        )
