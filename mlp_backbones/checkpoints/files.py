"""The reader of checkpoint files, which executes nothing that is in them."""

import contextlib
import hashlib
import io
import mmap
import os
import re
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import CheckpointError, CheckpointNotFound, InvalidType
from ..utils.files import sha256
from .pickles import Described, SafeUnpickler, sizes

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 starts with
LONGEST_NAME = 500  # characters of a tensor's name
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema', 'ema_state_dict')
# Names that many files share, so that torch's cache cannot tell them apart.
COMMON = re.compile(r'[^.]*|(model|pytorch_model|weights|checkpoint|latest|last|best_.*|(epoch|iter)_\d+)\..*')
NUMBERS = re.compile(r'[biufc]\d{1,2}')  # the dtypes that a numpy array may have


def cached(url: str) -> Path:
    """Return the place of a download in torch's cache; mmengine's too, but for names that many share."""
    name = url.split('?')[0].rsplit('/', 1)[-1]
    if COMMON.fullmatch(name):
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}'
    return Path(torch.hub.get_dir()) / 'checkpoints' / name


def download(url: str, target: Path) -> None:
    """Download a file, or raise CheckpointError: no server, or a file that does not have the hash in its name."""
    print(f'Downloading {url} to {target}', file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), _hash_in(target.name), progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'cannot download {url}: {error}. Download it elsewhere and give the file, or put it there as {target}'
        ) from error


def _hash_in(name: str) -> str | None:
    """Return the SHA-256 prefix in a file's name, as in ``resmlp-7c5a91ce.pth``."""
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    return match[1] if match else None


def check_hash(path: Path) -> None:
    """Raise ``CheckpointError`` where a file differs from the SHA-256 prefix in its name; names without one pass."""
    prefix = _hash_in(path.name)
    if prefix and not (digest := sha256(path)).startswith(prefix):
        raise CheckpointError(
            f'{path} does not have the hash in its name: its SHA-256 starts with {digest[: len(prefix)]}, not '
            f'{prefix}; it may be truncated, download it again (or rename it, if the name means no hash)'
        )


def read_checkpoint(source: str | Path) -> Any:
    """Return what a ``.pth``, ``.pdparams`` or ``.safetensors`` file contains; nothing in it is run.

    Args:
        source (str | Path): A path, or a URL (``http``, ``https``), which is kept in torch's cache. A SHA-256 prefix in
            the name, as in ``resmlp-7c5a91ce.pth``, is verified.

    Returns:
        Any: Usually a dict; PaddlePaddle's arrays become tensors. See ``state_dict_of``.

    Raises:
        TypeError: ``source`` is neither a string nor a path.
        FileNotFoundError: The file does not exist.
        CheckpointError: The file is truncated, empty, not a checkpoint, asks for anything but tensors or for too much
            memory; or it cannot be read or downloaded.
    """
    if not isinstance(source, (str, Path)):
        raise InvalidType(f'a checkpoint must be a path or a URL, got {source!r}')
    if str(source).startswith(('http://', 'https://')):
        return _read_download(str(source))
    if '://' in str(source):
        raise CheckpointError(f'a checkpoint must be a path or an http(s) URL, got {source}')
    if not os.path.isfile(source):
        problem = 'is a folder' if os.path.isdir(source) else 'does not exist'
        raise CheckpointNotFound(f'the checkpoint {source} {problem}')
    return _read_file(Path(source))


def _read_download(url: str) -> Any:
    path = cached(url)
    new = not path.is_file()
    if new:
        download(url, path)
    try:
        return _read_file(path)
    except CheckpointError as error:
        if new and not isinstance(error.__cause__, (ImportError, MemoryError, OSError)):
            path.unlink(missing_ok=True)  # half a file, or a web page in its place, must not stay in the cache
            raise CheckpointError(f'{url}: {error}') from error
        raise


def _read_file(path: Path) -> Any:
    try:
        with path.open('rb') as file:
            start = file.read(256).lstrip()
        if not start:
            raise CheckpointError(f'{path} is empty')
        if start.lower().startswith((b'<!doctype', b'<html', b'<?xml')):
            raise CheckpointError(f'{path} is a web page, not a checkpoint: download the file behind the link')
        check_hash(path)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}') from error
    with explained(path, 'a checkpoint'):
        return _read(path, zipped=start.startswith(b'PK\3\4'))


@contextlib.contextmanager
def explained(path: str | Path, kind: str) -> Iterator[None]:
    """Turn what reading a file may raise into a ``CheckpointError`` that names the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing in it was run') from error
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    except Exception as error:  # a broken file may raise anything
        reason = (str(error).strip().splitlines() or ['no message'])[0][:200]
        raise CheckpointError(f'{path} is not {kind}, or is truncated: {type(error).__name__}: {reason}') from error


def _read(path: Path, zipped: bool) -> Any:
    if path.suffix == '.safetensors':
        from safetensors.torch import load_file

        return load_file(path)
    limit = memory_limit(path)
    if zipped and path.suffix != '.pdparams':
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, limit)
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _read_paddle(content, limit) if path.suffix == '.pdparams' else read_legacy(content, len(content), limit)


def memory_limit(path: Path) -> int:
    """Return how many bytes the tensors of a file may claim: weights may be tied, but not a thousand times."""
    return 8 * path.stat().st_size + (16 << 20)


def _read_paddle(content: mmap.mmap, limit: int) -> dict[str, Tensor]:
    """Return the arrays of a ``.pdparams`` file as tensors."""
    unpickler = SafeUnpickler(content, limit)
    made = unpickler.load()
    if isinstance(made, Mapping) and isinstance(made.get('model'), Mapping):
        made = made['model']
    if not isinstance(made, Mapping):
        raise ValueError('its content is not a dict of arrays')
    tensors = {}
    for name, described in made.items():
        # "StructuredToParameterName@@" is a dict of names beside the arrays.
        if isinstance(described, Described) and described.path.endswith(('._reconstruct', '._frombuffer')):
            array = array_of(described)
            unpickler.spend(64 + array.nbytes)
            # torch needs the machine's byte order, and memory that may be written to.
            tensors[str(name)] = torch.from_numpy(array.astype(array.dtype.newbyteorder('=')))
    return tensors


def array_of(made: Described) -> np.ndarray:
    """Return the numpy array that a file describes, or raise an error of any kind where it is damaged."""
    if made.path.endswith('._frombuffer'):
        content, dtype, shape, order = made.args
    else:
        _, shape, dtype, fortran, content = made.state
        order = 'F' if fortran is True else 'C'
    return numbers_of(dtype, content).reshape(sizes(shape), order='F' if order == 'F' else 'C')


def numbers_of(dtype: Described, content: Any) -> np.ndarray:
    """Return the numbers in some bytes, (n,), by the dtype that a file describes."""
    code = dtype.args[0]
    if not isinstance(content, (bytes, bytearray)) or not isinstance(code, str) or not NUMBERS.fullmatch(code):
        raise CheckpointError('contains an array of something other than numbers')
    big_endian = dtype.state is not None and dtype.state[1] == '>'
    return np.frombuffer(content, np.dtype(f'{">" if big_endian else "<"}{code}'))


def _read_archive(archive: zipfile.ZipFile, limit: int) -> Any:
    """Return what ``torch.save`` wrote: a zip archive with a pickle and a file for each storage."""
    names = archive.namelist()
    root = next((name.removesuffix('data.pkl') for name in names if name.endswith('/data.pkl')), None)
    if root is None:
        raise ValueError('the archive has no data.pkl')
    if f'{root}constants.pkl' in names:
        raise CheckpointError('is a TorchScript program')

    def read(name: str) -> bytes:
        entry = archive.getinfo(root + name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError('is compressed, as torch does not write it: unpacked it may be of any size')
        return archive.read(entry)

    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            unpickler.spend(archive.getinfo(f'{root}data/{key}').file_size)
            content = bytearray(read(f'data/{key}'))
            empty = torch.empty(0, dtype=torch.uint8)
            storages[key] = torch.frombuffer(content, dtype=torch.uint8) if content else empty
        return storages[key]

    if f'{root}byteorder' in names and read('byteorder') != sys.byteorder.encode():
        raise ValueError('it was written on a machine of another byte order')
    unpickler = SafeUnpickler(io.BytesIO(read('data.pkl')), limit, storage)
    return unpickler.load()


def read_legacy(content: Any, length: int, limit: int) -> Any:
    """Return what torch before 1.6 wrote: the fourth of five pickles, the fifth lists the storages that follow.

    Args:
        content: Has ``read`` and ``readline``.
        length (int): Its bytes.
        limit (int): Bytes that its tensors may claim.
    """
    storages: dict[str, tuple[Tensor, int]] = {}  # and their number of items

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            size = count * torch.empty(0, dtype=dtype).element_size()
            if size > length:
                raise ValueError('there are fewer numbers than it says')
            saved.spend(size)
            storages[key] = torch.zeros(size, dtype=torch.uint8), count
        return storages[key][0]

    if SafeUnpickler(content, limit).load() != LEGACY_MAGIC:
        raise ValueError('it does not start as a file of torch does')
    _, system = SafeUnpickler(content, limit).load(), SafeUnpickler(content, limit).load()
    if not isinstance(system, dict) or system.get('little_endian') is not (sys.byteorder == 'little'):
        raise ValueError('it was written on a machine of another byte order')
    saved = SafeUnpickler(content, limit, storage)
    made = saved.load()
    keys = SafeUnpickler(content, limit).load()
    if not isinstance(keys, list) or any(type(key) is not str for key in keys) or sorted(keys) != sorted(storages):
        raise ValueError('its storages are not those that its tensors need')
    for key in keys:
        tensor, count = storages[key]
        numbers = content.read(8 + len(tensor))
        if len(numbers) != 8 + len(tensor) or int.from_bytes(numbers[:8], sys.byteorder) != count:
            raise ValueError('there are fewer numbers than it says')
        tensor.numpy()[:] = np.frombuffer(numbers, np.uint8, offset=8)
    return made


def state_dict_of(content: Any, source: object = 'the checkpoint') -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name, out of its wrappers and without ``module.``.

    Args:
        content (Any): What ``read_checkpoint`` returned. Of several wrappers the first of ``WRAPPERS`` counts: weights
            go before their moving average.
        source (object): What messages call it.

    Returns:
        dict[str, Tensor]: In the file's order; what is not a tensor is left out.

    Raises:
        CheckpointError: It contains no tensors.
    """
    for _ in range(3):  # a dict may be inside itself
        inner = [content.get(key) for key in WRAPPERS] if isinstance(content, Mapping) else []
        content = next((value for value in inner if isinstance(value, Mapping)), content)
    if not isinstance(content, Mapping):
        raise CheckpointError(f'{source} is not a checkpoint: expected a dict of tensors, got {type(content).__name__}')
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f'{source} is not a checkpoint: it contains no tensors')
    if strange := next((key for key in tensors if len(key) > LONGEST_NAME or not key.isprintable()), None):
        raise CheckpointError(f'{source} is not a checkpoint: {strange[:40]!a} is not a valid name of a tensor')
    tensors = {k: v for k, v in tensors.items() if k not in ('steps', 'n_averaged')}  # of a moving average
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
