"""Files that a run of mmengine writes, read without running what is in them."""

import argparse
import io
from pathlib import Path
from typing import Any

import torch

from .files import array_of, explained, memory_limit, numbers_of, read_checkpoint, read_legacy
from .pickles import Described, SafeUnpickler


def read_training_checkpoint(source: str | Path) -> Any:
    """Return a checkpoint as mmengine resumes it: weights, optimizer, schedulers, histories and what hooks saved.

    ``meta['config']`` is left out: mmengine never writes it, and runs it as Python where it is there.

    Args:
        source (str | Path): As of ``read_checkpoint``.

    Returns:
        Any: Usually a dict.

    Raises:
        CheckpointError: As of ``read_checkpoint``.
    """
    described = read_checkpoint(source)
    with explained(source, 'a checkpoint'):
        content = _made(described, {})
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content


def classes_of(content: Any) -> dict[str, Any]:
    """Return the ``dataset_meta`` of what ``read_checkpoint`` gave: names, colors and ids of classes; or nothing."""
    meta = content.get('meta') if isinstance(content, dict) else None
    found = meta.get('dataset_meta') if isinstance(meta, dict) else None
    try:
        return dict(dataset_meta=_made(found, {})) if isinstance(found, dict) else {}
    except Exception:  # what is odd there does not keep anyone from the weights
        return {}


def read_predictions(path: Path) -> Any:
    """Return what ``tools/test.py --out`` or mmengine's ``DumpResults`` wrote: a pickle, with tensors on the CPU.

    Raises:
        CheckpointError: The file asks for anything but containers, numbers and tensors, or is damaged.
    """
    limit = memory_limit(path)
    with path.open('rb') as file:
        unpickler = SafeUnpickler(file, limit)
        # A tensor in a pickle has its numbers in bytes, which are a file of their own.
        nested = lambda content: read_legacy(io.BytesIO(content), len(content), unpickler.limit)  # noqa: E731
        unpickler.allowed['torch.storage._load_from_bytes'] = nested
        with explained(path, 'a pickle'):
            return _made(unpickler.load(), {})


def use_safe_reader() -> None:
    """Let mmengine read local files and downloads with ``read_training_checkpoint``, in this process.

    mmengine names the reader in its log. ``torchvision://``, ``s3://`` and its other schemes stay as they are.
    """
    from mmengine.runner.checkpoint import CheckpointLoader

    def load_from_mlp_backbones(filename: str, map_location: Any = None) -> Any:
        return read_training_checkpoint(filename)

    CheckpointLoader.register_scheme(('', 'http://', 'https://'), load_from_mlp_backbones, force=True)


def _made(value: Any, done: dict[int, Any]) -> Any:
    """Return a value with the objects that its file describes, each made once."""
    if id(value) not in done:
        done[id(value)] = _remade(value, done)
    return done[id(value)]


def _remade(value: Any, done: dict[int, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _made(item, done) for key, item in value.items() if not _is_method(item)}
    if isinstance(value, (list, tuple)):
        return type(value)(_made(item, done) for item in value)
    return _object(value, done) if isinstance(value, Described) else value


def _is_method(value: Any) -> bool:
    """Return whether a file names a method here; its owner has one of its own already."""
    return isinstance(value, Described) and value.path.endswith('.getattr')


def _object(described: Described, done: dict[int, Any]) -> Any:
    name = described.path.rpartition('.')[2]
    if name in ('_reconstruct', '_frombuffer'):
        return array_of(described).copy()
    if name == 'scalar':
        return numbers_of(*described.args)[0].item()
    if name == 'HistoryBuffer':
        from mmengine.logging import HistoryBuffer

        state = _made(described.state, done)
        return HistoryBuffer(state['_log_history'], state['_count_history'], int(state['max_length']))
    if name == 'device':
        return torch.device(*described.args)
    if name == 'Namespace':
        return argparse.Namespace(**(_made(described.state, done) or {}))
    return None  # the methods of a history
