"""The backbones, one family a file."""

from . import loading  # noqa: F401  (lets the hosts' models take any dialect)
from .convmlp import ConvMLP
from .gmlp import GMLP
from .repmlp import RepMLP
from .resmlp import ResMLP

__all__ = ['GMLP', 'ConvMLP', 'RepMLP', 'ResMLP']
