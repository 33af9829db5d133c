"""Weights from elsewhere: files read safely, other libraries' names understood."""

from .dialects import CONVMLP, GMLP, REPMLP, RESMLP, Dialect
from .files import CheckpointError, fetch, read_checkpoint, sha256, state_dict_of, written_whole

__all__ = [
    'CONVMLP',
    'GMLP',
    'REPMLP',
    'RESMLP',
    'CheckpointError',
    'Dialect',
    'fetch',
    'read_checkpoint',
    'sha256',
    'state_dict_of',
    'written_whole',
]
