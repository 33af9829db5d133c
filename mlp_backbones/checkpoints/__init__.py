"""Weights from elsewhere: files read safely, other libraries' names understood."""

from ..utils.errors import CheckpointError
from ..utils.files import sha256
from .convert import Converted, convert, write_checkpoint
from .dialects import FAMILIES, Family
from .files import fetch, read_checkpoint, state_dict_of

__all__ = [
    'FAMILIES',
    'CheckpointError',
    'Converted',
    'Family',
    'convert',
    'fetch',
    'read_checkpoint',
    'sha256',
    'state_dict_of',
    'write_checkpoint',
]
