"""What several test modules share."""

import importlib
import warnings
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'


def host_config(name):
    """A config of a framework, HOST::FILE, from its package (mmengine does not find mmseg's on the onedl stack)."""
    host, _, file = name.partition('::')
    return Config.fromfile(Path(importlib.import_module(host).__file__).parent / '.mim/configs' / file)


def build(cfg):
    """The model of a config, as its framework builds it."""
    scope = cfg.default_scope
    importlib.import_module(f'{scope}.models')
    model = dict(cfg.model)
    if 'data_preprocessor' in cfg:
        model.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(scope), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return importlib.import_module(f'{scope}.registry').MODELS.build(model)
