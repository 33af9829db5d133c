"""The model zoo: published models by name. The data is in ``configs/*/metafile_*.yml``."""

import contextlib
import copy
import difflib
import fnmatch
import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional, Union

from .environment import require

ROOT = Path(__file__).parent / '.mim'  # configs and metafiles, in a clone and in an installed package


@functools.lru_cache(maxsize=1)
def _entries() -> dict[str, dict]:
    """Name -> entry of its metafile, in the files' order."""
    import yaml

    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    entries = [e for file in index['Import'] for e in yaml.safe_load((ROOT / file).read_text())['Models']]
    return {entry['Name']: entry for entry in entries}


def list_models(pattern: Optional[str] = None) -> list[str]:
    """Names of the zoo's models.

    Args:
        pattern (str, optional): Keep names that match it, with wildcards as in a shell: ``'resmlp*'``.

    Returns:
        list[str]: Sorted.
    """
    return sorted(name for name in _entries() if pattern is None or fnmatch.fnmatch(name, pattern))


def get_entry(name: str) -> dict[str, Any]:
    """What the zoo knows of a model: config, parameters, published metrics and their source, weights.

    Args:
        name (str): Its name, or one that PaddleViT's or the authors' zoo has for it, such as ``'repmlp_b_256'``.

    Returns:
        dict[str, Any]: An entry of ``configs/*/metafile_*.yml``.

    Raises:
        ValueError: There is no such model.
    """
    entries = _entries()
    if name in entries:
        return entries[name]
    aliases = {alias.lower(): key for key, entry in entries.items() for alias in entry.get('Alias', [])}
    if name.lower() in aliases:
        return entries[aliases[name.lower()]]
    close = difflib.get_close_matches(name.lower(), [*entries, *aliases], 3, 0.5)
    raise ValueError(
        f'there is no model {name!r} in the zoo'
        + (f'; did you mean {", ".join(close)}?' if close else f'; it has {", ".join(list_models())}')
    )


def get_config(name: str):
    """The config of a model.

    Args:
        name (str): As for ``get_entry``.

    Returns:
        mmengine.Config: Ready to be changed; each call reads the file anew.
    """
    require('mmengine')
    from mmengine.config import Config

    return Config.fromfile(ROOT / get_entry(name)['Config'])


def get_model(name: str, pretrained: Union[bool, str, Path] = False, **overrides: Any):
    """Build a classifier, a detector or a segmentor of the zoo.

    Args:
        name (str): As for ``get_entry``.
        pretrained (bool | str | Path): Load the published weights, or those of a file or URL, in any dialect.
            Defaults to False.
        **overrides: Merged into the config's ``model``: ``head=dict(num_classes=10)``,
            ``backbone=dict(frozen_stages=1)``.

    Returns:
        torch.nn.Module: The host's model, in eval mode.

    Raises:
        ValueError: There is no such model, or ``pretrained=True`` for weights that no link leads to straight.
        CheckpointError: The weights do not fill the backbone.
    """
    entry, cfg = get_entry(name), get_config(name)
    weights = entry.get('Weights') if pretrained is True else pretrained or None
    if pretrained is True and weights is None:
        raise ValueError(
            f'{entry["Name"]} has no direct link to weights. {entry["Get"]} Give the file: pretrained=PATH'
        )
    cfg.merge_from_dict(dict(model=dict(backbone=dict(init_cfg=None))))
    cfg.merge_from_dict(dict(model=overrides))
    return build_model(cfg, weights)


def build_model(cfg, weights: Optional[Union[str, Path]] = None, strict: bool = False):
    """Build the model of a config.

    Args:
        cfg (mmengine.Config): Of a classifier, a detector or a segmentor.
        weights (str | Path, optional): A file or URL to load, in any dialect, instead of the backbone's ``init_cfg``.
        strict (bool): Refuse weights that leave a tensor of the whole model unfilled, or hold others. Defaults to
            False: only the backbone must be filled.

    Returns:
        torch.nn.Module: The host's model, in eval mode.

    Raises:
        CheckpointError: The weights do not fill the backbone, or, with ``strict``, the model.
    """
    require(cfg.default_scope)
    from mmengine.registry import DefaultScope

    from .checkpoints import read_checkpoint

    importlib.import_module(f'{cfg.default_scope}.models')

    model_cfg = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    if weights is not None:
        model_cfg.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = importlib.import_module(f'{cfg.default_scope}.registry').MODELS.build(model_cfg)
        with quiet_log('WARNING'):  # mmengine lists every parameter otherwise
            model.init_weights()
    if weights is not None:
        fill_model(model, read_checkpoint(weights), weights, strict)
    return model.eval()


@contextlib.contextmanager
def quiet_log(level: str) -> Iterator[None]:
    """Let mmengine's log say nothing below ``level`` for a while."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def fill_model(model, content: Any, source: Union[str, Path], strict: bool = False) -> None:
    """Load a checkpoint that was read already.

    Args:
        model (torch.nn.Module): A host's model.
        content (Any): What ``read_checkpoint`` gave.
        source (str | Path): Where it is from, for messages.
        strict (bool): As in ``build_model``. Defaults to False.

    Raises:
        CheckpointError: The weights do not fill the backbone, or, with ``strict``, the model.
    """
    from mmengine.runner.checkpoint import load_state_dict

    from .checkpoints import CheckpointError, state_dict_of

    tensors = state_dict_of(content, source)
    if not strict:
        load_state_dict(model, tensors, strict=False)
        return
    try:
        model.load_state_dict(tensors)
    except CheckpointError:
        raise
    except RuntimeError as error:
        beside = sorted(map(str, Path(source).parent.glob('*.py'))) if Path(source).is_file() else []
        raise CheckpointError(
            f'{source} does not fill the model: {error}'
            + (f'\nThe config that it was trained with lies beside it: {", ".join(beside)}' if beside else '')
        ) from error


def register_with_mmpretrain() -> None:
    """Let ``mmpretrain.get_model`` and its inferencers know the zoo's classifiers; a second call does nothing.

    Called by itself where mmpretrain was imported before this package.
    """
    require('mmpretrain')
    from mmpretrain.apis.model import ModelHub

    for file in sorted((ROOT / 'configs/classification').glob('metafile_*.yml')):
        entries = [e for e in _entries().values() if e['Config'].startswith('configs/classification/')]
        entries = [e for e in entries if e['In Collection'].lower() == file.stem.removeprefix('metafile_')]
        if not all(ModelHub.has(entry['Name']) for entry in entries):
            ModelHub.register_model_index(file, config_prefix=ROOT)
        for entry in entries:
            for alias in entry.get('Alias', []):
                ModelHub._models_dict.setdefault(alias.lower(), ModelHub._models_dict[entry['Name']])
