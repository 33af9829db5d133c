"""Hooks that keep a run safe, one a file."""

from .adapt_checkpoint import AdaptCheckpointHook as AdaptCheckpointHook
from .checkpoint import CheckpointHook as CheckpointHook
from .compile import CompileHook as CompileHook
from .exact_resume import ExactResumeHook as ExactResumeHook
from .faulty_files import FaultyFilesHook as FaultyFilesHook
from .interrupt import InterruptHook as InterruptHook
from .non_finite import StopAtNonFiniteHook as StopAtNonFiniteHook
