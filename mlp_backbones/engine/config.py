"""Configs read, changed by options, and made to point at the data that they are given."""

import contextlib
import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..utils.cli import say
from ..utils.config import nodes
from ..utils.environment import require
from ..utils.errors import UserError

FRAMEWORKS = ('mmdet', 'mmpretrain', 'mmseg')
# Settings at the top that mmengine's runners or this package read, whether a config has them or not.
SETTINGS = {'check_annotations', 'compile', 'data_root', 'find_unused_parameters', 'model_wrapper_cfg'}
SETTINGS |= {'runner_type', 'shapes', 'strategy', 'sync_bn'}


class Problem(NamedTuple):
    """Something wrong with a run: an error where it is certain, else a warning."""

    certain: bool
    text: str

    @classmethod
    def error(cls, text: str) -> 'Problem':
        return cls(True, text)

    @classmethod
    def warning(cls, text: str) -> 'Problem':
        return cls(False, text)


def load_config(path: str | Path, options: dict | None = None):
    """Read a config file, merge options into it, and make sure that its framework works.

    Args:
        path (str | Path): The file, or a name of the zoo.
        options (dict, optional): What ``--cfg-options`` gave: dotted keys and their values.

    Returns:
        mmengine.Config: With ``data_root`` handed on to its datasets and evaluators.

    Raises:
        UserError: The file does not exist, is not a valid config, or ``options`` do not fit it.
        MissingDependency: Its framework is missing or broken.
    """
    require('mmengine')
    from mmengine.config import Config

    path, _ = find_config(path)
    if not Path(path).is_file():
        folder = Path(path).parent
        names = sorted(p.name for p in folder.glob('*.py')) if folder.is_dir() else []
        close = difflib.get_close_matches(Path(path).name, names, 3, 0.5) or names[:3]
        raise UserError(
            f'the config {path} does not exist' + (f'; in {folder} there is {", ".join(close)}' if close else '')
        )
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'{path} is not a valid config: {type(error).__name__}: {error}') from error
    defaults = [cfg.get('data_root'), *inherited(path, 'data_root')]
    report(option_problems(cfg, options or {}, path))
    try:
        cfg.merge_from_dict(options or {})
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f'--cfg-options {options} do not fit {path}: {error}') from error
    for node in nodes(cfg._cfg_dict):
        node.update({key: str(value) for key, value in node.items() if isinstance(value, Path)})
    if 'model' not in cfg:
        raise UserError(f'{path} has no `model`: a base file to inherit from rather than a config to run?')
    scope = cfg.get('default_scope')
    if scope in FRAMEWORKS:
        require(scope)
    _check_kinds(cfg, path)
    _spread_data_root(cfg, defaults)
    return cfg


def report(problems: Iterable[Problem]) -> None:
    """Say what is a suspicion only, and raise ``UserError`` at what is certain."""
    for problem in problems:
        if problem.certain:
            raise UserError(problem.text)
        say(f'warning: {problem.text}')


def option_problems(cfg, options: Mapping[str, Any], path: str) -> Iterator[Problem]:
    """Find options that nothing would read, such as ``lr`` for ``optim_wrapper.optimizer.lr``.

    Args:
        cfg (mmengine.Config): The config as the file has it.
        options (Mapping): Dotted keys and their values.
        path (str): The config's file, for the messages.

    Yields:
        Problem: Certain for an unknown setting at the top whose name is that of one elsewhere, or close to one. Below,
        the class that gets a setting refuses what it does not take; a close name is named beforehand.
    """
    from mmengine.runner import Runner

    known = {*cfg, *SETTINGS, *inspect.signature(Runner.__init__).parameters}
    values = cfg.to_dict()
    for key in options:
        if key.split('.')[0] not in known:
            yield _unknown_at_the_top(values, key, known, path)
            continue
        node: Any = values
        for part in key.split('.'):
            if isinstance(node, list | tuple) and part.isdecimal() and int(part) < len(node):
                node = node[int(part)]
            elif isinstance(node, Mapping) and part in node:
                node = node[part]
            else:
                break
        else:
            continue
        known_there = isinstance(node, Mapping) and node is not values
        names = [str(name) for name in node if name != 'type'] if known_there else []
        if part != 'type' and (close := difflib.get_close_matches(part, names, 1, 0.8)):
            yield Problem.warning(f'--cfg-options {key}: the config has no {part!r} there; did you mean {close[0]}?')


def _unknown_at_the_top(values: dict, key: str, known: set[str], path: str) -> Problem:
    places = list(_places(values))
    same = [place for place in places if place.rpartition('.')[2] == key.rpartition('.')[2]]
    close = same or difflib.get_close_matches(key, [*known, *places], 3, 0.8)
    text = f'--cfg-options {key}: {path} does not have this setting'
    if close:
        text += f'; did you mean {", ".join(close[:5])}? (If code of yours reads it, give it a value in your config.)'
        return Problem.error(text)
    return Problem.warning(f'{text}, so only code of yours can read it')


def _places(value: Any, place: str = '') -> Iterator[str]:
    """Yield the name of every setting within a config value, as ``--cfg-options`` takes it."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield f'{place}{key}'
        yield from _places(child, f'{place}{key}.')


def find_config(name: str | Path) -> tuple[str, dict]:
    """Return the config that a path or a name of the zoo leads to.

    Returns:
        tuple[str, dict]: Its path, and the zoo's entry, which is empty for a path.

    Raises:
        UserError: The name does not exist; close ones are named.
    """
    from ..apis.zoo import ROOT, get_entry

    name = str(name)
    if name.endswith('.py') or os.path.sep in name:
        return name, {}
    try:
        entry = get_entry(name)
    except ValueError as error:
        raise UserError(f'{error} (The path of a config ends in .py.)') from error
    return str(ROOT / entry['Config']), entry


def inherited(path: str, key: str) -> list:
    """Return the values that the files which a config inherits from give to a top-level setting."""
    from mmengine.config import Config

    values = []
    with contextlib.suppress(OSError):  # a base that mmengine finds by a variable such as {{fileDirname}}
        for name in Config._get_base_files(path):
            base, _ = Config._get_cfg_path(name, path)
            value = Config.fromfile(base, import_custom_modules=False).get(key)
            values += [value, *inherited(base, key)]
    return values


def check_framework(cfg, path: str) -> None:
    """Raise ``UserError`` where a config does not say which framework it is for."""
    if cfg.get('default_scope') not in FRAMEWORKS:
        raise UserError(f'{path}: default_scope must be {", ".join(FRAMEWORKS)}, got {cfg.get("default_scope")!r}')


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
            name, needed = '.'.join(keys), 'a dict' if kind is dict else 'a string'
            raise UserError(f'{path}: {name} must be {needed}, got {value!r:.200}')
    if cfg.model is None:
        raise UserError(f'{path}: model must be a dict, got None')
    if cfg.get('shapes') and not all(cfg.shapes.get(key) for key in ('root', 'task')):
        raise UserError(f'{path}: shapes needs a root and a task, got {dict(cfg.shapes)}')


def _spread_data_root(cfg, defaults: list) -> None:
    """Let a changed top-level ``data_root`` reach the datasets and evaluators.

    They hold copies of it, made in the file that set them: what equals the ``data_root`` of one of the config's files
    (``defaults``) is such a copy and follows; a dataset that was given another folder keeps it.
    """
    root = cfg.get('data_root')
    if root is None:
        return
    stale = {value for value in defaults if isinstance(value, str)} - {root}
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


def class_name(settings) -> str:
    """Return the name of the class that some settings ask for, without its scope or module; '' without any."""
    kind = settings.get('type', '') if isinstance(settings, dict) else ''
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
