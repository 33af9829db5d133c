"""The backbones, one family a file."""

from .convmlp import ConvMLP
from .gmlp import GMLP
from .repmlp import RepMLP
from .resmlp import ResMLP

__all__ = ['GMLP', 'ConvMLP', 'RepMLP', 'ResMLP']
