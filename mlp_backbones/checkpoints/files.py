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

PARTIAL = '.partial-'  # in the names of files that are being written
TIMEOUT = 20  # seconds to wait for a host to answer
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema', 'ema_state_dict')


class CheckpointError(RuntimeError):
    """A file that is no checkpoint, or one that does not fit the model; the message says which and why."""


def fetch(url: str) -> Path:
    """Download a file into torch's cache, where mmengine looks too, unless it is there already.

    Raises:
        CheckpointError: The host cannot be reached, or the file is not the one that its name's hash says.
    """
    name = url.split('?')[0].rsplit('/', 1)[-1]
    if name.split('.')[0] in ('model', 'pytorch_model', 'weights'):  # the same for everybody: not the name alone
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}'
    target = Path(torch.hub.get_dir()) / 'checkpoints' / name
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
    handle, name = tempfile.mkstemp(prefix=f'.{target.name}{PARTIAL}', dir=target.parent)
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
    if start.lower().startswith((b'<!doctype', b'<html', b'<?xml')):
        raise CheckpointError(f'{path} is a web page, not a checkpoint: download the file behind the link')
    check_hash(path, path.name)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    if path.suffix == '.pdparams':
        return _read_paddle(path)
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path) and any(n.endswith('/constants.pkl') for n in zipfile.ZipFile(path).namelist()):
            raise CheckpointError('is a TorchScript program')  # which torch before 2.6 would load all the same
        with contextlib.suppress(pickle.UnpicklingError):
            return torch.load(path, map_location='cpu', weights_only=True)
        # Training checkpoints of mmengine hold more than tensors: logged numbers, in a class of their own.
        return torch.load(path, map_location='cpu', weights_only=False, pickle_module=_TorchPickle)
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing of it was run') from error
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f'{path} is not a checkpoint, or is truncated: {_first_line(error)}') from error


def _first_line(error: Exception) -> str:
    return f'{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else "no message"}'


class _Dtype:
    """Stands for a numpy dtype in a pickle: plain numbers only, checked before numpy sees them."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[biufc]\d{1,2}', code):
            raise CheckpointError(f'would make an array of {code!r}, which are no numbers')
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ('<', '>') else '='


class _Array:
    """Stands for a numpy array in a pickle; ``value`` is made of checked parts."""

    value: Optional[np.ndarray] = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, 'F' if fortran else 'C')

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> '_Array':
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray, pickle.PickleBuffer)):
            raise CheckpointError('would make an array of something else than bytes')
        array = np.frombuffer(bytes(content), np.dtype(dtype.order + dtype.code))
        self.value = array.reshape([int(n) for n in shape], order='F' if order == 'F' else 'C')
        return self


class _ArrayUnpickler(pickle.Unpickler):
    """Makes stand-ins of numpy arrays, and plain containers, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ('collections', 'OrderedDict'):
            return OrderedDict
        if (module, name) == ('numpy', 'dtype'):
            return _Dtype
        if (module, name) == ('numpy', 'ndarray'):
            return _Array
        if module in ('numpy.core.multiarray', 'numpy._core.multiarray') and name in ('_reconstruct', 'scalar'):
            return _reconstruct if name == '_reconstruct' else _scalar
        if module in ('numpy.core.numeric', 'numpy._core.numeric') and name == '_frombuffer':
            return _from_buffer
        if (module, name) == ('_codecs', 'encode'):
            return _latin1
        raise CheckpointError(f'would make {module}.{name}, which is no tensor')


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(*_: Any) -> None:
    """Single numbers are of no use here."""


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array().fill(content, dtype, shape, order)


def _latin1(text: str, encoding: str = 'latin1') -> bytes:
    """How pickles of protocol 2 write bytes."""
    if encoding != 'latin1':
        raise CheckpointError(f'would encode as {encoding}')
    return codecs.encode(text, 'latin1')


class _TorchUnpickler(_ArrayUnpickler):
    """Makes tensors, plain containers and stand-ins of what training scripts keep beside them, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        kind = getattr(torch, name, None) if module == 'torch' else None
        if isinstance(kind, torch.dtype) or kind in (torch.Size, torch.device, torch.Tensor):
            return kind
        if (module, name) in (('torch._utils', '_rebuild_tensor_v2'), ('torch._utils', '_rebuild_parameter')):
            return getattr(torch._utils, name)
        if (module, name) in (('mmengine.logging.history_buffer', 'HistoryBuffer'), ('argparse', 'Namespace')):
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
    arrays = {k: v.value for k, v in content.items() if isinstance(v, _Array) and v.value is not None}
    return {str(k): torch.from_numpy(v.astype(v.dtype.newbyteorder('='))) for k, v in arrays.items()}


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
    tensors = {k: v for k, v in tensors.items() if k not in ('steps', 'n_averaged')}  # of a moving average
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
