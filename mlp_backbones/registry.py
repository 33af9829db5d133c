"""Where OpenMMLab finds the classes of this package.

``type='mlp_backbones.ConvMLP'`` builds from the registries of mmdet, mmseg and mmpretrain with nothing
imported beforehand: mmengine imports ``<scope>.registry`` by itself. After ``import mlp_backbones`` the
plain name ``type='ConvMLP'`` works as well.
"""

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
