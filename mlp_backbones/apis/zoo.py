"""The model zoo: published models by name. The data is in ``configs/*/metafile_*.yml``."""

import copy
import difflib
import fnmatch
import functools
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader

from ..checkpoints import convert, read_checkpoint, state_dict_of
from ..models.backbones.loading import fill_model
from ..utils.cli import quiet_log
from ..utils.environment import require
from ..utils.errors import InvalidType, InvalidValue

ROOT = Path(__file__).parents[1] / '.mim'  # configs and metafiles, in a clone and in an installed package


@functools.lru_cache(maxsize=1)
def _entries() -> dict[str, dict]:
    """Return name -> entry of its metafile, in the files' order."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    entries = [e for file in index['Import'] for e in yaml.safe_load((ROOT / file).read_text())['Models']]
    return {entry['Name']: entry for entry in entries}


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names of the zoo's models.

    Args:
        pattern (str, optional): Keep names that match it, in any case, with wildcards as in a shell: ``'resmlp*'``.

    Returns:
        list[str]: Sorted.
    """
    return sorted(name for name in _entries() if pattern is None or fnmatch.fnmatchcase(name.lower(), pattern.lower()))


def get_entry(name: str) -> dict[str, Any]:
    """Return what the zoo knows of a model: config, parameters, published metrics and their source, weights.

    Args:
        name (str): Its name, or one that PaddleViT's or the authors' zoo has for it, such as ``'repmlp_b_256'``.

    Returns:
        dict[str, Any]: An entry of ``configs/*/metafile_*.yml``.

    Raises:
        ValueError: The zoo has no such model; the message names close ones.
    """
    aliases = {alias.lower(): entry for entry in _entries().values() for alias in entry.get('Alias', [])}
    known = {**_entries(), **aliases}
    if name.lower() in known:
        return copy.deepcopy(known[name.lower()])
    close = difflib.get_close_matches(name.lower(), known, 3, 0.5)
    raise InvalidValue(
        f'the zoo has no model {name!r}'
        + (f'; did you mean {", ".join(close)}?' if close else f'; it has {", ".join(list_models())}')
    )


def get_config(name: str):
    """Return the config of a model.

    Args:
        name (str): As for ``get_entry``.

    Returns:
        mmengine.Config: Ready to be changed; each call reads the file anew.
    """
    return Config.fromfile(ROOT / get_entry(name)['Config'])


def published_weights(entry: Mapping[str, Any], instead: str) -> str:
    """Return the link to the weights of an entry, or raise ValueError and say how a file is given ``instead``."""
    if 'Weights' not in entry:
        raise InvalidValue(f'{entry["Name"]} has no direct link to weights. {entry["Get"]} Give the file: {instead}')
    return entry['Weights']


def get_model(name: str, pretrained: bool | str | Path = False, **overrides: Any):
    """Build a classifier, a detector or a segmentor of the zoo.

    Args:
        name (str): As for ``get_entry``.
        pretrained (bool | str | Path): Load the published weights, or those of a file or URL, in any dialect.
            Defaults to False.
        **overrides: Merged into the config's ``model``: ``head=dict(num_classes=10)``,
            ``backbone=dict(frozen_stages=1)``.

    Returns:
        torch.nn.Module: The framework's model, in eval mode.

    Raises:
        ValueError: The zoo has no such model, or ``pretrained=True`` for weights without a direct link.
        TypeError: The model has no part of a name in ``overrides``, or a part takes no such argument.
        CheckpointError: The weights do not fill the backbone.
    """
    entry, cfg = get_entry(name), get_config(name)
    weights = published_weights(entry, 'pretrained=PATH') if pretrained is True else pretrained or None
    cls = _models_of(cfg).get(cfg.model.type)
    known = inspect.signature(cls).parameters
    if unknown := [key for key in overrides if key not in known]:  # a part's own class refuses the rest
        raise InvalidType(
            f'get_model({name!r}): {cls.__name__} takes no argument {", ".join(unknown)}, only {", ".join(known)}. '
            f'Arguments of a part are given as in backbone=dict(in_channels=4)'
        )
    cfg.model.backbone.init_cfg = None  # so that mmengine refuses one among the overrides
    if 'data_preprocessor' in cfg:  # a classifier's is beside the model; Mixup takes the classes from it
        cfg.model.data_preprocessor = cfg.pop('data_preprocessor')
        cfg.model.data_preprocessor |= {k: v for k, v in (overrides.get('head') or {}).items() if k == 'num_classes'}
    cfg.merge_from_dict(dict(model=overrides))
    return build_model(cfg, weights)


def build_model(cfg, weights: str | Path | None = None, strict: bool = False):
    """Build the model of a config.

    Args:
        cfg (mmengine.Config): Of a classifier, a detector or a segmentor.
        weights (str | Path, optional): A file or URL to load, in any dialect. Defaults to None: the backbone starts
            from random numbers, whatever its ``init_cfg`` names.
        strict (bool): Refuse weights that leave a tensor of the whole model unfilled, or hold others. Defaults to
            False: only the backbone must be filled.

    Returns:
        torch.nn.Module: The framework's model, in eval mode.

    Raises:
        CheckpointError: The weights do not fill the backbone, or, with ``strict``, the model.
    """
    models = _models_of(cfg)
    model_cfg = copy.deepcopy(cfg.model)
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    model_cfg.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = models.build(model_cfg)
        with quiet_log('WARNING'):  # mmengine lists every parameter otherwise
            model.init_weights()
    if weights is not None:
        fill_model(model, read_checkpoint(weights), weights, strict)
    return model.eval()


def _models_of(cfg):
    """Return the registry that a config's model is built from, with all that its framework registers."""
    require(cfg.default_scope)
    importlib.import_module(f'{cfg.default_scope}.models')
    return importlib.import_module(f'{cfg.default_scope}.registry').MODELS


def register_with_mmpretrain() -> None:
    """Let ``mmpretrain.get_model`` and its inferencers know the zoo's classifiers; a second call does nothing.

    Their weights are read by ``read_checkpoint`` and given the names of mmpretrain's classifiers. So is any file that
    mmpretrain is given as ``mlp_backbones:FILE_OR_URL``. Importing this package does not register them.
    """
    require('mmpretrain')
    from mmpretrain.apis.model import ModelHub

    scheme = 'mlp_backbones:'

    def read(name: str, map_location: object = None) -> dict[str, Any]:
        source = name.removeprefix(scheme)
        return dict(state_dict=convert(state_dict_of(read_checkpoint(source), source)).tensors)

    CheckpointLoader.register_scheme(prefixes=scheme, loader=read, force=True)
    entries = [entry for entry in _entries().values() if entry['Config'].startswith('configs/classification/')]
    if all(ModelHub.has(entry['Name']) for entry in entries):
        return
    for file in sorted((ROOT / 'configs/classification').glob('metafile_*.yml')):
        ModelHub.register_model_index(file, config_prefix=ROOT)
    for entry in entries:
        known = ModelHub._models_dict[entry['Name']]
        if 'Weights' in entry:
            known.weights = scheme + entry['Weights']
        for alias in entry.get('Alias', []):
            ModelHub._models_dict.setdefault(alias.lower(), known)
