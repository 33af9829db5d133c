"""MLP backbones for OpenMMLab: the same class in mmpretrain, mmdet and mmseg.

Importing this package registers the backbones under their plain names (``type='ConvMLP'``) where
mmengine is installed. Without mmengine the import still works; a name that needs it then says which
command installs it.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors, type checkers and the API reference; `_PUBLIC` says the same at run time
    from .backbones import GMLP as GMLP
    from .backbones import ConvMLP as ConvMLP
    from .backbones import RepMLP as RepMLP
    from .backbones import ResMLP as ResMLP
    from .deployment import reparameterize as reparameterize
    from .environment import check_environment as check_environment
    from .necks import SimpleFeaturePyramid as SimpleFeaturePyramid
    from .registry import MODELS as MODELS
    from .zoo import get_config as get_config
    from .zoo import get_model as get_model
    from .zoo import list_models as list_models
    from .zoo import register_with_mmpretrain as register_with_mmpretrain

__version__ = '0.1.0'

# Public name -> the module that defines it.
_PUBLIC = {
    'ConvMLP': 'mlp_backbones.backbones',
    'ResMLP': 'mlp_backbones.backbones',
    'GMLP': 'mlp_backbones.backbones',
    'RepMLP': 'mlp_backbones.backbones',
    'SimpleFeaturePyramid': 'mlp_backbones.necks',
    'MODELS': 'mlp_backbones.registry',
    'check_environment': 'mlp_backbones.environment',
    'get_config': 'mlp_backbones.zoo',
    'get_model': 'mlp_backbones.zoo',
    'list_models': 'mlp_backbones.zoo',
    'register_with_mmpretrain': 'mlp_backbones.zoo',
    'reparameterize': 'mlp_backbones.deployment',
}
__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    from .environment import require

    if _PUBLIC[name] != 'mlp_backbones.environment':
        require('mmengine')
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted(__all__)


if importlib.util.find_spec('mmengine') is not None:
    try:
        from . import backbones as _backbones  # noqa: F401  (registers the plain names)
        from . import necks as _necks  # noqa: F401

        if 'mmpretrain.apis' in sys.modules:
            from .zoo import register_with_mmpretrain

            register_with_mmpretrain()
    except ImportError:
        # A broken mmengine must not break `import mlp_backbones`: __getattr__ names what is wrong.
        pass
