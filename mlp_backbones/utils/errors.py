"""All exceptions of this package but that of ``deploy/runtime.py``, which imports nothing of it.

``cli.run_tool`` prints these as one message. Every other exception is a bug, or beyond what the package can explain,
and keeps its traceback.
"""


class Error(Exception):
    """Base of this package's exceptions; the message says what was given and what is possible."""


class UserError(Error):
    """An option, a config, a path or a setting that the user gave cannot be used."""


class InvalidValue(Error, ValueError):
    """An argument of a possible type has an impossible value."""


class InvalidType(Error, TypeError):
    """An argument has an impossible type, or does not exist."""


class InvalidState(Error, RuntimeError):
    """A model or a run is in a state in which the operation is not possible."""


class FoldingError(Error, RuntimeError):
    """Layers cannot be folded into others."""


class CheckpointError(Error, RuntimeError):
    """A file is not a usable checkpoint, or does not belong to the model."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """The path of a checkpoint does not exist."""


class DataError(Error):
    """Data cannot be used.

    Args:
        message (str): Names the file and what is wrong with it.
    """

    def __init__(self, message: str) -> None:
        # An error in a worker of a dataloader arrives as text, with the worker's traceback before the message.
        name = f'{type(self).__module__}.{type(self).__name__}: '
        super().__init__(message.rpartition(name)[2].rstrip())


class MissingDependency(Error, ImportError):
    """A package that is needed is absent or broken; the message ends with the command that fixes it."""
