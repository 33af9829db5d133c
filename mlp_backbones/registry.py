"""Where OpenMMLab finds the classes of this package.

``type='mlp_backbones.ConvMLP'`` builds from the registries of mmdet, mmseg and mmpretrain with nothing
imported beforehand: mmengine imports ``<scope>.registry`` by itself. After ``import mlp_backbones`` the
plain name ``type='ConvMLP'`` works as well, and so do our configs as ``_base_ = 'mlp_backbones::detection/…'`` and in
``mmengine.hub``.
"""

import warnings

from mmengine.registry import DATA_SAMPLERS as ROOT_DATA_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import STRATEGIES as ROOT_STRATEGIES
from mmengine.registry import Registry

from .utils.compat import find_our_configs

MODELS = Registry(
    'model',
    parent=ROOT_MODELS,
    scope='mlp_backbones',
    locations=['mlp_backbones.models'],
)
"""The backbones and necks, in mmengine's hierarchy of registries: ``MODELS.build(dict(type='ConvMLP'))``."""
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='mlp_backbones', locations=['mlp_backbones.engine.hooks'])
DATA_SAMPLERS = Registry(
    'data sampler', parent=ROOT_DATA_SAMPLERS, scope='mlp_backbones', locations=['mlp_backbones.datasets.samplers']
)
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='mlp_backbones', locations=['mlp_backbones.datasets.custom'])
STRATEGIES = Registry(
    'strategy', parent=ROOT_STRATEGIES, scope='mlp_backbones', locations=['mlp_backbones.engine.strategies']
)


def register_model(cls: type) -> type:
    """Class decorator: register ``cls`` as ``mlp_backbones.<name>``, and under its plain name where that is free."""
    MODELS.register_module(module=cls)
    name = cls.__name__
    if name in ROOT_MODELS.module_dict:
        other = ROOT_MODELS.module_dict[name]
        warnings.warn(
            f"type='{name}' is {other.__module__}.{other.__qualname__}, registered before mlp_backbones was imported; "
            f"ours is type='mlp_backbones.{name}'",
            stacklevel=2,
        )
    else:
        ROOT_MODELS.register_module(module=cls)
    return cls


find_our_configs()
