"""Weights from elsewhere: files read safely, other libraries' names understood."""

from .convert import FAMILIES, Converted, convert, write_checkpoint
from .dialects import CONVMLP, GMLP, REPMLP, RESMLP, Dialect
from .files import CheckpointError, fetch, read_checkpoint, sha256, state_dict_of

__all__ = [
    'CONVMLP',
    'FAMILIES',
    'GMLP',
    'REPMLP',
    'RESMLP',
    'CheckpointError',
    'Converted',
    'Dialect',
    'convert',
    'fetch',
    'read_checkpoint',
    'sha256',
    'state_dict_of',
    'write_checkpoint',
]
