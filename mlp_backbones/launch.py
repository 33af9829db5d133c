"""From a config to a run of mmengine's runner, with everything that can be checked checked before it starts.

The config decides which framework runs: its ``default_scope`` is 'mmdet', 'mmseg' or 'mmpretrain'.
"""

import argparse
import contextlib
import datetime
import difflib
import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .datasets.annotations import annotation_file, annotation_findings, dataset_nodes, nodes, place_of
from .datasets.files import DataError
from .environment import MissingDependency, require

# Settings that mmengine's runners or this module read, whether a config has them or not.
SETTINGS = {'check_annotations', 'compile', 'data_root', 'find_unused_parameters', 'max_faulty_files'}
SETTINGS |= {'model_wrapper_cfg', 'runner_type', 'shapes', 'strategy', 'sync_bn'}
HOSTS = ('mmdet', 'mmpretrain', 'mmseg')
RUN_HOOKS = ('ExactResumeHook', 'StopAtNonFiniteHook', 'InterruptHook')
LARGE = 64 << 20  # bytes of an annotation file that takes about two seconds to check; COCO's is half a gigabyte


class UserError(Exception):
    """Something the user gave cannot be used; the message says what was given and what is possible."""


def run_tool(main: Callable[[], None]) -> int:
    """Call ``main``; what the user can mend is printed as one message instead of a traceback.

    Args:
        main (Callable): A tool, which reads its arguments from ``sys.argv``.

    Returns:
        int: The exit status: 0, or 1 after an error.
    """
    try:
        main()
    except (UserError, DataError, MissingDependency) as error:
        return _fail(error)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        # Raised by this package itself, so the message is meant for the user; or by mmengine's registry, which names
        # the class and the argument that a setting of the config does not fit. All else keeps its traceback.
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        unfit = isinstance(error, TypeError) and last.parts[-2:] == ('registry', 'build_functions.py')
        if Path(__file__).parent not in last.parents and not unfit:
            raise
        return _fail(error)
    return 0


def _say(text: str) -> None:
    """Print a line, in the first of several processes only."""
    if os.environ.get('RANK', '0') == '0':
        print(text, flush=True)


def _fail(error: Exception) -> int:
    print(f'\nerror: {error}', file=sys.stderr, flush=True)
    traceback.clear_frames(error.__traceback__)  # ends the workers of a dataloader now, rather than somehow at exit
    return 1


def config_parser(description: str) -> argparse.ArgumentParser:
    """The options of every tool that takes a config and changes to it."""
    require('mmengine')
    from mmengine.config import DictAction

    class Options(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            if wrong := [value for value in values if '=' not in value]:
                parser.error(f'{option_string} takes KEY=VALUE, got {" ".join(wrong)}')
            super().__call__(parser, namespace, values, option_string)

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or a name of the zoo (docs/model_zoo.md)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override settings of the config, such as data_root=/data/coco/ or optim_wrapper.optimizer.lr=2e-4',
    )
    return parser


def common_parser(description: str) -> argparse.ArgumentParser:
    """The options that training and testing share."""
    parser = config_parser(description)
    parser.add_argument('--work-dir', help='folder for logs and checkpoints (default: work_dirs/<name of the config>)')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started; the dist_ and slurm_ scripts set it (default: none)',
    )
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def prepare(args: argparse.Namespace, train: bool, amp: str | None = None, resume: str | None = None):
    """Load the config of a run, adapt it to data and device, and refuse what cannot work.

    Args:
        args (Namespace): What ``common_parser`` parsed.
        train (bool): Whether the run trains, or only tests.
        amp (str, optional): Mixed precision in 'float16', 'bfloat16' or 'auto', the one that the family takes. Defaults
            to None, as the config says.
        resume (str, optional): A checkpoint to go on from, or 'auto' for the work dir's newest. Defaults to None, as
            the config says.

    Returns:
        mmengine.Config: Ready for ``Runner.from_cfg``.

    Raises:
        UserError: A path, a URL, a setting or a piece of data that cannot be used.
        MissingDependency: The config's framework is missing or broken.
    """
    if args.launcher == 'slurm':
        _read_slurm()
    if args.launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError('--launcher pytorch is for processes that torchrun has started: use tools/dist_train.sh')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = load_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif not cfg.get('work_dir'):
        cfg.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    for part in ('train_dataloader', 'train_cfg', 'optim_wrapper') if train else ('test_dataloader', 'test_cfg'):
        if not cfg.get(part):
            raise UserError(f'{args.config} has no {part}, so it cannot be {"trained" if train else "tested"}')
    _check_backbone(cfg)
    _check_data(cfg, train)
    _adopt_categories(cfg)
    _check_annotations(cfg, train)
    _check_class_folders(cfg, train)
    _fit_top_k(cfg)
    _faulty_files(cfg)
    check_writable(cfg.work_dir, 'the work dir', '--work-dir')
    if train:
        _set_precision(cfg, amp)
        _warn_of_what_is_not_used(cfg)
        _make_safe(cfg)
        if resume:
            cfg.resume = True
            cfg.load_from = cfg.get('load_from') if resume == 'auto' else resume
        if cfg.get('resume'):
            _choose_checkpoint(cfg, auto=resume == 'auto' or not cfg.get('load_from'))
        init_cfg = cfg.model.get('backbone', {}).get('init_cfg') or {}
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            _check_weights(init_cfg['checkpoint'], 'model.backbone.init_cfg.checkpoint')
    else:  # a config that a run has dumped, with what is for training only
        cfg.resume = False
        cfg.custom_hooks = [h for h in cfg.get('custom_hooks') or [] if _class_name(h) not in RUN_HOOKS]
    if cfg.get('load_from'):
        given = 'CHECKPOINT' if not train else '--resume' if resume not in (None, 'auto') else 'load_from'
        _check_weights(cfg.load_from, given)
    # Seconds that processes wait for one another. One that dies is noticed at once, a machine that vanishes is not.
    cfg.setdefault('env_cfg', {}).setdefault('dist_cfg', dict(backend='nccl')).setdefault('timeout', 600)
    _adapt_to_device(cfg)
    return cfg


def _read_slurm() -> None:
    """Set what torch.distributed reads from what srun sets, as mmengine does, but with a port for each job.

    Two jobs on one machine would meet on mmengine's 29500.
    """
    given = os.environ
    try:
        given.update(RANK=given['SLURM_PROCID'], WORLD_SIZE=given['SLURM_NTASKS'], LOCAL_RANK=given['SLURM_LOCALID'])
        given.setdefault('MASTER_PORT', str(20000 + int(given['SLURM_JOB_ID']) % 10000))
        machines = given.get('SLURM_STEP_NODELIST') or given['SLURM_NODELIST']
    except KeyError as error:
        raise UserError(
            f'--launcher slurm is for processes that srun has started ({error} is not set): use tools/slurm_train.sh'
        ) from error
    if 'MASTER_ADDR' not in given:
        command = ['scontrol', 'show', 'hostnames', machines]
        try:
            names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f'scontrol does not tell the machines of {machines} ({error}): set MASTER_ADDR') from error
        given['MASTER_ADDR'] = names.split()[0]


def load_config(path: str, options: dict | None = None):
    """Read a config file, merge options into it, and make sure that its framework works.

    Args:
        path (str): The file, or a name of the zoo.
        options (dict, optional): What ``--cfg-options`` gave: dotted keys and their values.

    Returns:
        mmengine.Config: With ``data_root`` handed on to its datasets and evaluators.

    Raises:
        UserError: The file is missing, is no config, or ``options`` do not fit it.
        MissingDependency: Its framework is missing or broken.
    """
    require('mmengine')
    from mmengine.config import Config

    path, _ = find_config(path)
    if not Path(path).is_file():
        folder = Path(path).parent
        names = sorted(p.name for p in folder.glob('*.py')) if folder.is_dir() else []
        close = difflib.get_close_matches(Path(path).name, names, 3, 0.5) or names[:3]
        raise UserError(f'there is no config {path}' + (f'; in {folder} there is {", ".join(close)}' if close else ''))
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'{path} is not a usable config: {type(error).__name__}: {error}') from error
    defaults = set(re.findall(r'^data_root\s*=\s*[\'"](.*?)[\'"]', cfg.text, re.MULTILINE))
    _check_options(cfg, options or {}, path)
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f'--cfg-options {options} do not fit {path}: {error}') from error
    if 'model' not in cfg:
        raise UserError(f'{path} has no `model`: a base file to inherit from rather than a config to run?')
    scope = cfg.get('default_scope')
    if scope in HOSTS:
        require(scope)
    _check_kinds(cfg, path)
    _spread_data_root(cfg, defaults)
    return cfg


def find_config(name: str) -> tuple[str, dict]:
    """The config that a path or a name of the zoo leads to.

    Returns:
        tuple[str, dict]: Its path, and the zoo's entry, which is empty for a path.

    Raises:
        UserError: There is no such name; close ones are named.
    """
    from .zoo import ROOT, get_entry

    if name.endswith('.py') or os.path.sep in name:
        return name, {}
    try:
        entry = get_entry(name)
    except ValueError as error:
        raise UserError(f'{error} (The path of a config ends in .py.)') from error
    return str(ROOT / entry['Config']), entry


def load_model_config(path: str):
    """As ``load_config``, for tools that build the model: its framework and its backbone are checked too."""
    cfg = load_config(path)
    check_host(cfg, path)
    if not cfg.model.get('backbone'):
        raise UserError(f'the model of {path} has no backbone')
    _check_backbone(cfg)
    return cfg


def _check_options(cfg, options: Mapping[str, Any], path: str) -> None:
    """Refuse options that nothing would ever read, such as ``lr`` for ``optim_wrapper.optimizer.lr``."""
    from mmengine.runner import Runner

    known = {*cfg, *SETTINGS, *inspect.signature(Runner.__init__).parameters}
    for key in options:
        if key.split('.')[0] not in known:
            places = list(_places(cfg.to_dict()))
            same = [place for place in places if place.rpartition('.')[2] == key.rpartition('.')[2]]
            close = same or difflib.get_close_matches(key, [*known, *places], 3, 0.6)
            raise UserError(
                f'--cfg-options {key}: {path} has no such setting'
                + (f'; did you mean {", ".join(close[:5])}?' if close else '')
            )


def _places(value: Any, place: str = '') -> Iterator[str]:
    """The name of every setting within a config value, as ``--cfg-options`` takes it."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield f'{place}{key}'
        yield from _places(child, f'{place}{key}.')


def check_host(cfg, path: str) -> None:
    """Raise ``UserError`` where a config does not say which framework it is for."""
    if cfg.get('default_scope') not in HOSTS:
        raise UserError(f'{path}: default_scope must be {", ".join(HOSTS)}, got {cfg.get("default_scope")!r}')


def _check_kinds(cfg, path: str) -> None:
    """Refuse settings of another kind than what is checked before a run takes them for; None is as good as absent."""
    loaders = [key for key in cfg if key.endswith('_dataloader')]
    wanted: list[tuple[tuple[str, ...], type]] = [
        ((key,), dict)
        for key in ('default_hooks', 'env_cfg', 'model', 'optim_wrapper', 'shapes', 'train_cfg', *loaders)
        if key in cfg
    ]
    wanted += [((key,), str) for key in ('data_root', 'load_from', 'work_dir') if key in cfg]
    wanted += [(('default_hooks', 'checkpoint'), dict), (('env_cfg', 'dist_cfg'), dict)]
    wanted += [(('model', 'backbone'), dict), (('shapes', 'root'), str), (('shapes', 'task'), str)]
    settings: list[tuple[Any, tuple[str, ...], type]] = [(cfg, keys, kind) for keys, kind in wanted]
    settings += [(n, (k,), str) for n in nodes([cfg[k] for k in loaders]) for k in ('data_root', 'ann_file', 'split')]
    for node, keys, kind in settings:
        value = node
        for key in keys:
            value = value.get(key) if isinstance(value, dict | type(cfg)) else None
        if not isinstance(value, kind | None):
            name, needed = '.'.join(keys), 'a dict' if kind is dict else 'a text'
            raise UserError(f'{path}: {name} must be {needed}, got {value!r:.200}')
    if cfg.model is None:
        raise UserError(f'{path}: model must be a dict, got None')
    if cfg.get('shapes') and not all(cfg.shapes.get(key) for key in ('root', 'task')):
        raise UserError(f'{path}: shapes needs a root and a task, got {dict(cfg.shapes)}')


def _spread_data_root(cfg, defaults: set[str]) -> None:
    """Let a changed top-level ``data_root`` reach the datasets and evaluators, which hold copies of the default.

    A dataset whose own ``data_root`` was set to something else keeps it.
    """
    root = cfg.get('data_root')
    if root is None:
        return
    stale = defaults - {root}
    parts = [v for k, v in cfg.items() if k.endswith(('_dataloader', '_evaluator'))]
    for node in nodes(parts):
        for key, value in node.items():
            if key == 'data_root' and value in stale:
                node[key] = root
            elif key == 'ann_file' and isinstance(value, str):
                for old in stale:
                    if value.startswith(os.path.join(old, '')):
                        node[key] = os.path.join(root, value[len(old) :].lstrip('/'))
                        break


def _check_backbone(cfg) -> None:
    """Build the backbone without memory or weights, so that a wrong argument is said first and alone."""
    import torch

    from .registry import MODELS

    backbone = dict(cfg.model.get('backbone') or {})
    name = str(backbone.pop('type', ''))
    cls = MODELS.get(name if name.startswith('mlp_backbones.') else f'mlp_backbones.{name}') if name else None
    if cls is None:
        if name.startswith('mlp_backbones.'):
            names = ', '.join(sorted(f'mlp_backbones.{n}' for n in MODELS.module_dict))
            raise UserError(f'model.backbone.type is {name!r}; this package has {names}')
        return
    try:
        with torch.device('meta'):
            built = cls(**backbone)
    except (TypeError, ValueError) as error:
        hint = '. If another backbone was inherited, replace its settings: backbone=dict(_delete_=True, ...)'
        inherited = 'unexpected keyword argument' in str(error)
        raise UserError(f'model.backbone does not fit: {error}{hint if inherited else ""}') from error
    necks = cfg.model.get('neck') or {}
    neck = necks[0] if isinstance(necks, list) and necks else necks
    wanted = neck.get('in_channels') if isinstance(neck, dict) else None
    if _class_name(neck).endswith('FPN') and isinstance(wanted, list | tuple) and tuple(wanted) != built.out_channels:
        raise UserError(
            f'model.neck.in_channels is {list(wanted)}, but the backbone gives {list(built.out_channels)} '
            f'(out_indices={list(built.out_indices)})'
        )


def _datasets(cfg, train: bool) -> Iterator[tuple[str, dict]]:
    for name in ('train_dataloader', 'val_dataloader') if train else ('test_dataloader',):
        for node in dataset_nodes((cfg.get(name) or {}).get('dataset')):
            yield name, node


def data_of(cfg) -> list[tuple[str, dict]]:
    """('train', 'val' or 'test', settings) of every dataset of a config, with a user's own classes taken over.

    Raises:
        UserError: A folder or a file that the settings name is not there.
    """
    for train in (True, False):
        _check_data(cfg, train)
    with contextlib.suppress(UserError):  # annotations that cannot be read: whoever reads them says so
        _adopt_categories(cfg)
    return [(loader.split('_')[0], node) for train in (True, False) for loader, node in _datasets(cfg, train)]


def _check_data(cfg, train: bool) -> None:
    """Draw the shapes set where it is the config's default, and refuse folders and files that are not there."""
    shapes = cfg.get('shapes')
    if shapes and cfg.get('data_root') == shapes['root']:
        from .datasets import make_shapes

        make_shapes(shapes['root'], shapes['task'], exist_ok=True)
    for loader, dataset in _datasets(cfg, train):
        if str(dataset['type']).rsplit('.', 1)[-1].startswith('CIFAR'):
            continue  # mmpretrain downloads these by itself
        root = dataset.get('data_root') or ''
        paths = [root]
        if path := annotation_file(dataset):
            paths.append(path)
        prefix = dataset.get('data_prefix') or {}
        prefixes = prefix.values() if isinstance(prefix, dict) else [prefix]
        paths += [os.path.join(root, p) for p in prefixes if isinstance(p, str)]
        if str(dataset['type']).endswith('ImageNet') and dataset.get('split'):
            paths.append(os.path.join(root, dataset['split']))
        lost = [p for p in paths if p and '://' not in p and not os.path.exists(p)]
        if lost:
            wanted = '\n'.join(f'  {"missing" if p in lost else "there  "}  {p}' for p in dict.fromkeys(paths) if p)
            raise UserError(
                f'the data of {loader} ({dataset["type"]}) is not there:\n{wanted}\n'
                'Point to it with --cfg-options data_root=FOLDER, or link it to the path above. To try the models '
                'without a dataset, run a config whose name ends in _shapes.py.'
            )


def _adopt_categories(cfg) -> None:
    """Take the classes from the annotation file where a COCO-format folder has classes of its own.

    Only for ``CocoDataset`` without ``metainfo``, when the file has none of COCO's class names: what would otherwise
    be an empty dataset becomes the user's.
    """
    if cfg.get('default_scope') != 'mmdet':
        return
    loaders = [cfg[k] for k in ('train_dataloader', 'val_dataloader', 'test_dataloader') if cfg.get(k)]
    datasets = [n for n in nodes([loader.get('dataset') for loader in loaders]) if _class_name(n) == 'CocoDataset']
    if not datasets or any(n.get('metainfo') for n in datasets):
        return
    paths = [p for n in datasets if (p := annotation_file(n)) and Path(p).is_file()]
    if not paths:
        return
    path = min(paths, key=os.path.getsize)  # any of them tells; COCO's training file is half a gigabyte
    from .datasets.coco import category_names, read_json

    try:
        names = tuple(category_names(read_json(path)))
    except DataError as error:
        raise UserError(f'{path} is not a COCO annotation file: {error}') from error
    if not names:
        raise UserError(f'{path} has no categories')
    known = importlib.import_module('mmdet.datasets').CocoDataset.METAINFO['classes']
    if set(names) & set(known):
        return
    _say(f'{path} has classes of its own, {", ".join(names)}: the dataset and the heads take these {len(names)}.')
    for node in datasets:
        node['metainfo'] = dict(classes=names)
    for node in nodes(cfg.model):
        if 'num_classes' in node:
            node['num_classes'] = len(names)


def _annotation_errors(dataset: dict, scope: str, most: int | None = None) -> str:
    """What is wrong with the annotation file of a dataset, in words; empty where nothing is."""
    errors = [f'  {f}' for f in annotation_findings(dataset, scope, most) if f.level == 'error']
    return '\n'.join([f'{annotation_file(dataset)} cannot be used:', *errors]) if errors else ''


def _check_annotations(cfg, train: bool) -> None:
    """Refuse annotation files that a framework would fail on, or learn something wrong from.

    Of files over ``LARGE`` only the ends are read here; they are checked when a framework does not take them.
    """
    for loader, dataset in _datasets(cfg, train) if cfg.get('check_annotations', True) else ():
        if errors := _annotation_errors(dataset, cfg.get('default_scope') or 'mmengine', LARGE):
            raise UserError(
                f'{loader}: {errors}\nMend the file; or start all the same with --cfg-options check_annotations=False.'
            )


def _classifier_classes(cfg) -> int | None:
    """How many classes the head of a classifier has; None for other models."""
    head = cfg.model.get('head') if cfg.get('default_scope') == 'mmpretrain' else None
    number = head.get('num_classes') if isinstance(head, dict) else None
    return number if type(number) is int else None


def _check_class_folders(cfg, train: bool) -> None:
    """Refuse more folders of classes than a classifier has classes."""
    number = _classifier_classes(cfg)
    if number is None:
        return
    for loader, dataset in _datasets(cfg, train):
        folder = place_of(dataset)
        if annotation_file(dataset) or _class_name(dataset) not in ('CustomDataset', 'ImageNet'):
            continue
        classes = sorted(e.name for e in os.scandir(folder) if e.is_dir()) if os.path.isdir(folder) else []
        if len(classes) > number:
            raise UserError(
                f'{loader}: {folder} has {len(classes)} folders, one for each class, but model.head.num_classes is '
                f'{number}: {", ".join(classes[:5])}{", ..." if len(classes) > 5 else ""}'
            )


def _fit_top_k(cfg) -> None:
    """Leave out of an ImageNet recipe's accuracies those that a few classes cannot have."""
    number = _classifier_classes(cfg)
    if number is None:
        return
    for node in nodes([cfg.get(f'{split}_evaluator') for split in ('val', 'test')]):
        given = node.get('topk')
        if _class_name(node) != 'Accuracy' or not isinstance(given, list | tuple):
            continue
        if all(type(k) is int for k in given) and max(given, default=0) > number:
            node['topk'] = tuple(k for k in given if k <= number) or (1,)
            _say(f'{number} classes: accuracies of the first {node["topk"]} are measured, not of {tuple(given)}.')


def _warn_of_what_is_not_used(cfg) -> None:
    """Say what was set and will have no effect: a pipeline of no dataset, the end of a schedule after the run's."""
    used = [n.get('pipeline') for n in nodes([v for k, v in cfg.items() if k.endswith('_dataloader')])]
    for name in ('train_pipeline', 'test_pipeline', 'val_pipeline'):
        if cfg.get(name) and cfg[name] not in used:
            loader = name.replace('pipeline', 'dataloader')
            _say(
                f'warning: no dataset has the {name} of the config, so it is not used: datasets hold pipelines of '
                f'their own. Set {loader} = dict(dataset=dict(pipeline={name})) as well.'
            )
    unit = 'epoch' if cfg.train_cfg.get('max_epochs') else 'iter'
    length = cfg.train_cfg.get(f'max_{unit}s')
    for scheduler in nodes(cfg.get('param_scheduler')):
        ends = scheduler.get('end') or scheduler.get('milestones')
        last = max((n for n in (ends if isinstance(ends, list | tuple) else [ends]) if type(n) is int), default=0)
        known = type(length) is int and 'type' in scheduler
        if known and scheduler.get('by_epoch', True) == (unit == 'epoch') and last > length:
            _say(
                f'warning: the run ends after {unit} {length}, the learning rate of {_class_name(scheduler)} is '
                f'scheduled up to {last}. See "A shorter run" in docs/training.md.'
            )


def _faulty_files(cfg) -> int | None:
    """How many files that cannot be read training may pass over, as set in the config; None is the default."""
    limit = cfg.get('max_faulty_files')
    if limit is not None and (type(limit) is not int or limit < 0):
        raise UserError(f'max_faulty_files is a number of files, 0 or more, got {limit!r}')
    return limit


def check_target(path: str | Path) -> None:
    """Raise ``UserError`` where a file to write has no folder, is one itself, or cannot be made."""
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f'there is no folder {path.parent} to write {path.name} to')
    if path.is_dir():
        raise UserError(f'{path} is a folder')
    check_writable(path.parent)


def check_writable(folder: str | Path, what: str = 'the folder', option: str = '') -> None:
    """Raise ``UserError`` where no file can be made; a folder that is not there is made."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        help_ = f'; name another with {option}' if option else ''
        raise UserError(f'cannot write to {what} {folder}: {error.strerror}{help_}') from error


def _set_precision(cfg, amp: str | None) -> None:
    """Switch mixed precision on, and refuse float16 for ResMLP, whose activations are too large for it."""
    wrapper = cfg.optim_wrapper
    needs_bfloat16 = _class_name(cfg.model.get('backbone')) == 'ResMLP'
    if amp:
        wrapper['type'] = 'AmpOptimWrapper'
        auto = wrapper.get('dtype') or ('bfloat16' if needs_bfloat16 else 'float16')
        wrapper['dtype'] = auto if amp == 'auto' else amp
    if _class_name(wrapper) == 'AmpOptimWrapper' and needs_bfloat16 and wrapper.get('dtype') != 'bfloat16':
        raise UserError(
            'ResMLP overflows in float16: its authors train it in float32, and bfloat16 is fine too. '
            "Use --amp bfloat16, or optim_wrapper.dtype='bfloat16' in the config"
        )


def _class_name(settings) -> str:
    """The name of the class that some settings ask for, without its scope or module; '' where there is none."""
    kind = settings.get('type', '') if isinstance(settings, dict) else ''
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def _make_safe(cfg) -> None:
    """Whole checkpoints, exact resuming, a stop at NaN and at Ctrl-C: what ``hooks.py`` has, for any config."""
    checkpoint = cfg.setdefault('default_hooks', {}).setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if checkpoint and _class_name(checkpoint) == 'CheckpointHook':
        checkpoint['type'] = 'mlp_backbones.CheckpointHook'
    names = list(RUN_HOOKS)
    loader, sampler = cfg.train_dataloader, 'mlp_backbones.ResumableBatchSampler'
    if _class_name(loader.get('sampler')) not in ('DefaultSampler', 'InfiniteSampler', 'RepeatAugSampler'):
        names.remove('ExactResumeHook')  # others may give more than indices
    elif (loader.get('batch_sampler') or {}).get('type') != sampler:
        loader['batch_sampler'] = dict(
            type=sampler, batch_sampler=loader.get('batch_sampler'), drop_last=loader.pop('drop_last', False)
        )
    hooks = list(cfg.get('custom_hooks') or [])
    there = {h.get('type') for h in hooks}
    cfg.custom_hooks = hooks + [dict(type=t) for n in names if (t := f'mlp_backbones.{n}') not in there]


def _choose_checkpoint(cfg, auto: bool) -> None:
    """Find the checkpoint that a resumed run goes on from, and make sure that it is whole.

    Without one, with ``auto``, the run starts as it would without being resumed.
    """
    from .hooks import is_whole, newest_checkpoint, remove_partial_files

    remove_partial_files(cfg.work_dir)
    newest, broken = newest_checkpoint(cfg.work_dir)
    if not auto:
        path = Path(cfg.load_from)
        if path.exists() and not is_whole(path):
            other = f'; the newest whole one in {cfg.work_dir} is {newest}' if newest else ''
            raise UserError(f'--resume {path}: the checkpoint is truncated or no training checkpoint{other}')
        return
    if broken:
        _say(f'missing or not whole, so passed over: {", ".join(map(str, broken))}')
    _say(f'Resuming from {newest}' if newest else f'No checkpoint in {cfg.work_dir}: starting anew')
    cfg.resume = newest is not None
    if newest:
        cfg.load_from = str(newest)


def _check_weights(source: str, setting: str) -> None:
    """Make sure that a checkpoint can be read; one on the web is put into torch's cache, where mmengine looks.

    Raises:
        UserError: The path does not exist, or the URL cannot be had.
    """
    from .checkpoints import CheckpointError, fetch

    help_ = ''
    if setting[0].islower():  # of the config
        help_ = f'. Give another with --cfg-options {setting}=PATH_OR_URL'
    if '.init_cfg' in setting:
        help_ += f', or train from scratch with --cfg-options {setting.rsplit(".", 1)[0]}=None'
    if '://' not in source:
        if not os.path.exists(source):  # DeepSpeed's are folders
            raise UserError(f'there is no checkpoint {source} ({setting}){help_}')
        return
    if source.startswith(('http://', 'https://')):
        try:
            fetch(source)
        except CheckpointError as error:
            raise UserError(f'{error} ({setting}){help_}') from error


def _adapt_to_device(cfg) -> None:
    """Without a GPU: gloo instead of NCCL, float32 instead of AMP, BatchNorm instead of SyncBN; each is said."""
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        return
    notes = []
    if cfg.pop('sync_bn', None):
        notes.append('BatchNorm statistics of each process alone')
    wrapper = cfg.get('optim_wrapper') or {}
    if _class_name(wrapper) == 'AmpOptimWrapper':
        wrapper['type'] = 'OptimWrapper'
        for key in ('loss_scale', 'dtype'):
            wrapper.pop(key, None)
        notes.append('float32 instead of mixed precision')
    if cfg.launcher == 'mpi':
        raise UserError('no GPU found, and without one --launcher mpi is not possible: there are pytorch and slurm')
    if cfg.launcher != 'none':
        if not dist.is_initialized():
            dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=cfg.env_cfg.dist_cfg.timeout))
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
        norms = [n for n in nodes(cfg.model) if _class_name(n) == 'SyncBN']
        for node in norms:
            node['type'] = 'BN'
        notes.append('gloo instead of NCCL' + (', BN instead of SyncBN' if norms else ''))
    if notes:
        _say(f'No GPU found: {", ".join(notes)}.')


def build_runner(cfg):
    """The runner of a config; ``runner_type`` names another class than mmengine's Runner.

    Args:
        cfg (mmengine.Config): What ``prepare`` gave.

    Returns:
        mmengine.runner.Runner: Ready to ``train()`` or ``test()``.
    """
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from .datasets.faults import guard

    def explain(dataloader) -> str:
        scope = cfg.get('default_scope') or 'mmengine'
        return '\n'.join(filter(None, (_annotation_errors(n, scope) for n in dataset_nodes(dataloader))))

    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    guard(runner, _faulty_files(cfg), explain)
    return runner


def check_filled(runner, source: str) -> None:
    """Refuse to test a model that a checkpoint does not fill: with a head of random weights the figures mean nothing.

    Args:
        runner (mmengine.runner.Runner): What ``build_runner`` gave.
        source (str): File or URL.

    Raises:
        CheckpointError: A tensor of the model is missing or of another shape, or there are others.
    """
    import torch
    from mmengine.model import is_model_wrapper

    from .checkpoints import read_checkpoint
    from .zoo import fill_model

    model = getattr(runner, 'model', None)
    if isinstance(model, torch.nn.Module) and not os.path.isdir(source):  # FlexibleRunner has none yet
        fill_model(model.module if is_model_wrapper(model) else model, read_checkpoint(source), source, strict=True)
