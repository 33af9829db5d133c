"""Where OpenMMLab finds the classes of this package.

``type='mlp_backbones.ConvMLP'`` builds from the registries of mmdet, mmseg and mmpretrain with nothing
imported beforehand: mmengine imports ``<scope>.registry`` by itself. After ``import mlp_backbones`` the
plain name ``type='ConvMLP'`` works as well, and so do our configs as ``_base_ = 'mlp_backbones::detection/…'`` and in
``mmengine.hub``.
"""

from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import Registry

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='mlp_backbones',
    locations=['mlp_backbones.backbones', 'mlp_backbones.necks'],
)
"""The backbones and necks, in mmengine's hierarchy of registries: ``MODELS.build(dict(type='ConvMLP'))``."""
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mlp_backbones', locations=['mlp_backbones.hooks'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=ROOT_DATA_SAMPLERS, scope='mlp_backbones', locations=['mlp_backbones.datasets.sampling']
)
STRATEGIES = Registry('strategy', parent=ROOT_STRATEGIES, scope='mlp_backbones', locations=['mlp_backbones.strategies'])


def register_model(cls: type) -> type:
    """Class decorator: register ``cls`` as ``mlp_backbones.<name>`` and under its plain name.

    Raises:
        KeyError: Another class already has the plain name; nothing is ever replaced silently.
    """
    MODELS.register_module(module=cls)
    ROOT_MODELS.register_module(module=cls)
    return cls


def _register_configs() -> None:
    """Let mmengine find our configs under ``mlp_backbones::``.

    mmengine knows its own packages only, and builds what comes from another in that package's scope. Ours name their
    host in ``default_scope``, as a config inherited by its path does, so the scope is left out.
    """
    if 'mlp_backbones' in config_utils.MODULE2PACKAGE:
        return
    config_utils.MODULE2PACKAGE['mlp_backbones'] = 'mlp_backbones'
    find = Config._get_cfg_path

    def find_without_our_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = find(cfg_path, filename)
        return path, None if scope == 'mlp_backbones' else scope

    Config._get_cfg_path = staticmethod(find_without_our_scope)


_register_configs()
