"""Weights from elsewhere: files read safely, other libraries' names understood."""

from ..utils.errors import CheckpointError
from .convert import Converted, convert, write_checkpoint
from .dialects import FAMILIES, Family
from .files import read_checkpoint, state_dict_of

__all__ = [
    'FAMILIES',
    'CheckpointError',
    'Converted',
    'Family',
    'convert',
    'read_checkpoint',
    'state_dict_of',
    'write_checkpoint',
]
