"""Configs read, changed by options, and made to point at the data that they are given."""

import contextlib
import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..utils.cli import say
from ..utils.config import nodes
from ..utils.environment import require
from ..utils.errors import UserError

FRAMEWORKS = ('mmdet', 'mmpretrain', 'mmseg')
# Settings at the top that mmengine's runners or this package read, whether a config has them or not.
SETTINGS = {'check_annotations', 'compile', 'custom_imports', 'data_root', 'find_unused_parameters'}
SETTINGS |= {'model_wrapper_cfg', 'runner_type', 'shapes', 'strategy', 'sync_bn'}


def load_config(path: str | Path, options: Mapping[str, Any] | None = None):
    """Read the config of a model, merge options into it, and make sure that its framework works.

    Args:
        path (str | Path): The file, or a name of the zoo.
        options (Mapping, optional): What ``--cfg-options`` gave: dotted keys and their values.

    Returns:
        mmengine.Config: With ``data_root`` handed on to its datasets and evaluators.

    Raises:
        UserError: The file does not exist, is not the config of a model, or ``options`` do not fit it.
        ValueError: The zoo has no such name.
        MissingDependency: Its framework is missing or broken.
    """
    require('mmengine')
    from mmengine.config import Config
    from mmengine.utils import import_modules_from_strings

    path, _ = find_config(path)
    if not os.path.isfile(path):
        raise UserError(f'the config {path} does not exist')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'{path} is not a valid config: {type(error).__name__}: {error}') from error
    roots = {str(root) for root in (cfg.get('data_root'), *inherited(path, 'data_root')) if root}
    report(option_problems(cfg.to_dict(), options or {}, path))
    try:
        cfg.merge_from_dict(options or {})
        if any(key.split('.')[0] == 'custom_imports' for key in options or {}):
            import_modules_from_strings(**cfg.custom_imports)  # mmengine has imported the file's own
    except (TypeError, KeyError, AttributeError, ValueError, ImportError) as error:
        raise UserError(f'--cfg-options {options} do not fit {path}: {error}') from error
    for node in nodes(cfg._cfg_dict):
        node.update({key: str(value) for key, value in node.items() if isinstance(value, Path)})
    if not cfg.get('model') or 'backbone' not in cfg.model or cfg.get('default_scope') not in FRAMEWORKS:
        raise UserError(
            f'{path} has no `model` with a backbone, or no default_scope of {", ".join(FRAMEWORKS)}: a base file to '
            'inherit from rather than a config to run?'
        )
    require(cfg.default_scope)
    _spread_data_root(cfg, roots)
    return cfg


def report(problems: Iterable[UserError | UserWarning]) -> None:
    """Print the warnings among some problems, and raise the first error."""
    for problem in problems:
        if isinstance(problem, UserError):
            raise problem
        say(f'warning: {problem}')


def option_problems(values: dict, options: Iterable[str], path: str) -> Iterator[UserError | UserWarning]:
    """Find options that nothing would read, such as ``lr`` for ``optim_wrapper.optimizer.lr``.

    Args:
        values (dict): The config as the file has it.
        options (Iterable[str]): Dotted keys.
        path (str): The config's file, for the messages.

    Yields:
        UserError | UserWarning: An error for an unknown setting at the top whose name is that of one elsewhere, or
        close to one. Below, the class that gets a setting refuses what it does not take; a close name is named
        beforehand.
    """
    from mmengine.runner import Runner

    known = {*values, *SETTINGS, *inspect.signature(Runner.__init__).parameters}
    for key in options:
        top, *parts = key.split('.')
        if top not in known:
            places = list(_places(values))
            same = [place for place in places if place.rpartition('.')[2] == key.rpartition('.')[2]]
            close = same or difflib.get_close_matches(key, [*known, *places], 3, 0.8)
            text = f'--cfg-options {key}: {path} does not have this setting'
            if close:
                yield UserError(
                    f'{text}; did you mean {", ".join(close[:5])}? (If code of yours reads it, give it a value in your '
                    'config.)'
                )
            else:
                yield UserWarning(f'{text}, so only code of yours can read it')
        there = _children(values.get(top))
        for part in parts:
            if part not in there:
                if close := difflib.get_close_matches(part, there.keys() - {'type'}, 1, 0.8):
                    yield UserWarning(
                        f'--cfg-options {key}: the config has no {part!r} there; did you mean {close[0]}?'
                    )
                break
            there = _children(there[part])


def _children(value: Any) -> dict[str, Any]:
    """Return the settings within a config value by their names in ``--cfg-options``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {str(key): child for key, child in items}


def _places(value: Any, place: str = '') -> Iterator[str]:
    """Yield the dotted name of every setting within a config value."""
    for key, child in _children(value).items():
        yield f'{place}{key}'
        yield from _places(child, f'{place}{key}.')


def find_config(name: str | Path) -> tuple[str, dict]:
    """Return the config that a path or a name of the zoo leads to.

    Returns:
        tuple[str, dict]: Its path, and the zoo's entry, which is empty for a path.

    Raises:
        ValueError: The zoo has no such name; close ones are named.
    """
    from ..apis.zoo import ROOT, get_entry

    name = str(name)
    if name.endswith('.py') or os.path.sep in name:
        return name, {}
    entry = get_entry(name)
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


def _spread_data_root(cfg, roots: set) -> None:
    """Let a changed top-level ``data_root`` reach the datasets and evaluators.

    They hold copies of it, made in the file that set them: what equals the ``data_root`` of one of the config's files
    (``roots``) is such a copy and follows; a dataset that was given another folder keeps it.
    """
    root = cfg.get('data_root')
    if root is None:
        return
    known = sorted({*roots, root}, key=len, reverse=True)  # of two that a file is in, the inner one first
    for node in nodes([value for key, value in cfg.items() if key.endswith(('_dataloader', '_evaluator'))]):
        if node.get('data_root') in known:
            node['data_root'] = root
        file = str(node.get('ann_file'))
        old = next((old for old in known if file.startswith(os.path.join(old, ''))), root)
        if old != root:
            node['ann_file'] = os.path.join(root, os.path.relpath(file, old))


def class_name(settings) -> str:
    """Return the name of the class that some settings ask for, without its scope or module; '' without any."""
    kind = settings.get('type', '') if isinstance(settings, dict) else ''
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]
