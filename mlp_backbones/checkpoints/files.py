"""Reading checkpoint files without running what is in them, and writing them all or nothing."""

import codecs
import contextlib
import hashlib
import os
import pickle
import re
import shutil
import sys
import tempfile
import urllib.request
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from torch import Tensor

TIMEOUT = 20  # seconds to wait for a host to answer
# What pickled arrays and numbers of numpy are made with; private, and moved between versions.
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_SCALAR = np.float64(0).__reduce__()[0]
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema', 'ema_state_dict')


class CheckpointError(RuntimeError):
    """A file that is no checkpoint, or one that does not fit the model; the message says which and why."""


def fetch(url: str) -> Path:
    """Download a file into torch's cache, where mmengine looks too, unless it is there already.

    Raises:
        CheckpointError: The host cannot be reached, or the file is not the one that its name's hash says.
    """
    target = Path(torch.hub.get_dir()) / 'checkpoints' / url.rsplit('/', 1)[-1].split('?')[0]
    if target.is_file():
        return target
    print(f'Downloading {url} to {target}', file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, written_whole(target) as partial:
            with partial.open('wb') as file:
                shutil.copyfileobj(answer, file)
            check_hash(partial, target.name)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'cannot download {url}: {error}') from error
    return target


def check_hash(path: Path, name: str) -> None:
    """Compare a file with the SHA-256 prefix in its name, as in ``resmlp-7c5a91ce.pth``; names without one pass.

    Raises:
        CheckpointError: They differ.
    """
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    if match is None:
        return
    digest = sha256(path)
    if not digest.startswith(match[1]):
        raise CheckpointError(
            f'{path} is not the file that its name says: the SHA-256 starts with {digest[: len(match[1])]}, not '
            f'{match[1]}; it may be truncated, download it again (or rename it, if the name means no hash)'
        )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def written_whole(target: Union[str, Path]):
    """A temporary path beside ``target`` that takes its place when the block ends without an error."""
    target = Path(target)
    handle, name = tempfile.mkstemp(prefix=f'.{target.name}-', dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def read_checkpoint(source: Union[str, Path]) -> Any:
    """What a ``.pth``, ``.pdparams`` or ``.safetensors`` file holds; nothing in it is run.

    Args:
        source (str | Path): A path, or a URL (``http``, ``https``), which is kept in torch's cache. A SHA-256 prefix in
            the name, as in ``resmlp-7c5a91ce.pth``, is verified.

    Returns:
        Any: Usually a dict; PaddlePaddle's arrays become tensors. See ``state_dict_of``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is truncated, empty, no checkpoint, or would run code; or it cannot be downloaded.
    """
    if str(source).startswith(('http://', 'https://')):
        path = fetch(str(source))
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f'there is no checkpoint {source}')
    with path.open('rb') as file:
        start = file.read(256).lstrip()
    if not start:
        raise CheckpointError(f'{path} is empty')
    if start[:1] == b'<':
        raise CheckpointError(f'{path} is a web page, not a checkpoint: download the file behind the link')
    check_hash(path, path.name)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.suffix == '.pdparams':
        return _read_paddle(path)
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    # A file of the zip format is mapped rather than read, so that nothing is held twice.
    how: dict[str, Any] = dict(map_location='cpu', mmap=zipfile.is_zipfile(path))
    try:
        with contextlib.suppress(pickle.UnpicklingError):
            return torch.load(str(path), weights_only=True, **how)
        # Training checkpoints of mmengine hold more than tensors: logged numbers, in a class of their own.
        return torch.load(str(path), weights_only=False, pickle_module=_TorchPickle, **how)
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing of it was run') from error
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f'{path} is not a checkpoint, or is truncated: {_first_line(error)}') from error


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else "no message"}'


class _ArrayUnpickler(pickle.Unpickler):
    """Makes numpy arrays and plain containers, and nothing else."""

    _ALLOWED = {
        ('collections', 'OrderedDict'): OrderedDict,
        ('numpy', 'ndarray'): np.ndarray,
        ('numpy', 'dtype'): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._ALLOWED:
            return self._ALLOWED[module, name]
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name in ('_reconstruct', 'scalar'):
            return _RECONSTRUCT if name == '_reconstruct' else _SCALAR
        if module in ('numpy.core.numeric', 'numpy._core.numeric') and name == '_frombuffer':
            return _from_buffer
        if (module, name) == ('_codecs', 'encode'):
            return _latin1
        raise CheckpointError(f'would make {module}.{name}, which is no tensor')


class _TorchUnpickler(_ArrayUnpickler):
    """Makes tensors, arrays, plain containers and mmengine's logged numbers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        kind = getattr(torch, name, None) if module == 'torch' else None
        if isinstance(kind, torch.dtype) or kind in (torch.Size, torch.device, torch.Tensor):
            return kind
        if (module, name) in (('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_parameter')):
            return getattr(torch._utils, name)
        if (module, name) == ('mmengine.logging.history_buffer', 'HistoryBuffer'):
            return _Inert
        if module in ('builtins', '__builtin__') and name == 'getattr':
            return _no_attribute
        return super().find_class(module, name)


class _Inert:
    """Takes the place of a class whose instances are of no use here."""


def _no_attribute(owner: Any, name: str) -> None:
    """Takes the place of ``getattr``, by which a history names its methods."""
    if owner is not _Inert:
        raise CheckpointError(f'would look up {name}')


class _TorchPickle:
    """What ``torch.load`` uses of a pickle module."""

    Unpickler = _TorchUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **kwargs: Any) -> Any:
        return _TorchUnpickler(file, **kwargs).load()


def _latin1(text: str, encoding: str = 'latin1') -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding != 'latin1':
        raise CheckpointError(f'would encode as {encoding}')
    return codecs.encode(text, 'latin1')


def _from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _read_paddle(path: Path) -> dict[str, Tensor]:
    try:
        with path.open('rb') as file:
            content = _ArrayUnpickler(file).load()
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing of it was run') from error
    except Exception as error:  # a broken pickle may raise anything
        raise CheckpointError(f'{path} is not a checkpoint, or is truncated: {_first_line(error)}') from error
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping):
        content = content['model']
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{path} is not a checkpoint: it holds a {type(content).__name__}')
    # "StructuredToParameterName@@" is a dict of names beside the arrays.
    arrays = {k: v for k, v in content.items() if isinstance(v, np.ndarray) and v.dtype != object}
    return {str(key): torch.from_numpy(np.array(value)) for key, value in arrays.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    try:
        return load_file(path)
    except Exception as error:  # its errors have no common class
        raise CheckpointError(f'{path} is not a checkpoint, or is truncated: {_first_line(error)}') from error


def state_dict_of(content: Any, source: object = 'the checkpoint') -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, out of its wrappers and without ``module.``.

    Args:
        content (Any): What ``read_checkpoint`` gave. Of several wrappers the first of ``WRAPPERS`` counts: weights go
            before their moving average.
        source (object): What messages call it.

    Raises:
        CheckpointError: There are no tensors in it.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        inner: Optional[Mapping] = next((content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{source} is not a checkpoint: expected a dict of tensors, got {type(content).__name__}')
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f'{source} is not a checkpoint: there are no tensors in it')
    while all(key.startswith('module.') or key == 'steps' for key in tensors):
        tensors = {key.removeprefix('module.'): value for key, value in tensors.items() if key != 'steps'}
    return tensors
