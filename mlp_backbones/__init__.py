"""MLP backbones for OpenMMLab: the same class in mmpretrain, mmdet and mmseg.

Importing this package registers the backbones under their plain names (``type='ConvMLP'``) where
mmengine is installed. Without mmengine the import still works; a name that needs it then says which
command installs it.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors, type checkers and the API reference; `_PUBLIC` says the same at run time
    from .apis.zoo import get_config as get_config
    from .apis.zoo import get_model as get_model
    from .apis.zoo import list_models as list_models
    from .apis.zoo import register_with_mmpretrain as register_with_mmpretrain
    from .deploy.reparameterize import reparameterize as reparameterize
    from .models import GMLP as GMLP
    from .models import ConvMLP as ConvMLP
    from .models import RepMLP as RepMLP
    from .models import ResMLP as ResMLP
    from .models import SimpleFeaturePyramid as SimpleFeaturePyramid
    from .registry import MODELS as MODELS

__version__ = '0.1.0'

# Public name -> the module that defines it.
_PUBLIC = {
    'ConvMLP': 'mlp_backbones.models',
    'ResMLP': 'mlp_backbones.models',
    'GMLP': 'mlp_backbones.models',
    'RepMLP': 'mlp_backbones.models',
    'SimpleFeaturePyramid': 'mlp_backbones.models',
    'MODELS': 'mlp_backbones.registry',
    'get_config': 'mlp_backbones.apis.zoo',
    'get_model': 'mlp_backbones.apis.zoo',
    'list_models': 'mlp_backbones.apis.zoo',
    'register_with_mmpretrain': 'mlp_backbones.apis.zoo',
    'reparameterize': 'mlp_backbones.deploy.reparameterize',
}
__all__ = ['__version__', *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}; it has {", ".join(__all__)}')
    from .utils.environment import require

    require('mmengine')
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__():
    return sorted(__all__)


if importlib.util.find_spec('mmengine') is not None:
    try:
        from . import models as _models  # noqa: F401  (registers the plain names)
    except ImportError:
        # A broken mmengine must not break `import mlp_backbones`: __getattr__ names what is wrong.
        pass
