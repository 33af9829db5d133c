"""Hooks that keep a run safe, one a file."""

from .adapt_checkpoint import AdaptCheckpointHook
from .checkpoint import CheckpointHook
from .compile import CompileHook
from .exact_resume import ExactResumeHook
from .faulty_files import FaultyFilesHook
from .interrupt import InterruptHook
from .non_finite import StopAtNonFiniteHook

__all__ = [
    'AdaptCheckpointHook',
    'CheckpointHook',
    'CompileHook',
    'ExactResumeHook',
    'FaultyFilesHook',
    'InterruptHook',
    'StopAtNonFiniteHook',
]
