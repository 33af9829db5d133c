"""The reader of checkpoint files, which executes nothing that is in them.

What ``--resume`` and mmengine's FlexibleRunner load goes through mmengine's own reader instead.
"""

import hashlib
import io
import mmap
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..utils.errors import CheckpointError, CheckpointNotFound, InvalidType
from ..utils.files import sha256
from .pickles import ARRAYS, Described, SafeUnpickler, array_of

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 starts with
LONGEST_NAME = 500  # characters of a tensor's name
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema', 'ema_state_dict')


def fetch(url: str) -> Path:
    """Download a file into torch's cache, where mmengine looks too, unless it is there already.

    Raises:
        CheckpointError: The server cannot be reached, or the file does not have the hash in its name.
    """
    name = url.split('?')[0].rsplit('/', 1)[-1]
    if name.split('.')[0] in ('', 'model', 'pytorch_model', 'weights'):  # names that many files share
        name = f'{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name}'
    target = Path(torch.hub.get_dir()) / 'checkpoints' / name
    if target.is_file():
        return target
    print(f'Downloading {url} to {target}', file=sys.stderr, flush=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), _hash_in(name), progress=sys.stderr.isatty())
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f'cannot download {url}: {error}. Download it elsewhere and give the file, or put it there as {target}'
        ) from error
    return target


def _hash_in(name: str) -> str | None:
    """The SHA-256 prefix in a file's name, as in ``resmlp-7c5a91ce.pth``."""
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    return match[1] if match else None


def check_hash(path: Path) -> None:
    """Compare a file with the SHA-256 prefix in its name; names without one pass.

    Raises:
        CheckpointError: They differ.
    """
    prefix = _hash_in(path.name)
    if prefix and not (digest := sha256(path)).startswith(prefix):
        raise CheckpointError(
            f'{path} does not have the hash in its name: its SHA-256 starts with {digest[: len(prefix)]}, not '
            f'{prefix}; it may be truncated, download it again (or rename it, if the name means no hash)'
        )


def read_checkpoint(source: str | Path) -> Any:
    """What a ``.pth``, ``.pdparams`` or ``.safetensors`` file contains; nothing in it is run.

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
        path = fetch(str(source))
    elif '://' in str(source):
        raise CheckpointError(f'a checkpoint must be a path or an http(s) URL, got {source}')
    else:
        path = Path(source)
        if not os.path.isfile(path):
            raise CheckpointNotFound(f'the checkpoint {source} does not exist')
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
    reader = {'.safetensors': _read_safetensors, '.pdparams': _read_paddle}.get(path.suffix, _read_torch)
    try:
        return reader(path)
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing in it was run') from error
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    except Exception as error:  # a broken file may raise anything
        reason = (str(error).strip().splitlines() or ['no message'])[0][:200]
        raise CheckpointError(
            f'{path} is not a checkpoint, or is truncated: {type(error).__name__}: {reason}'
        ) from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _limit(path: Path) -> int:
    """Bytes that the tensors of a file may claim: weights may be tied, but not a thousand times."""
    return 8 * path.stat().st_size + (16 << 20)


def _read_paddle(path: Path) -> dict[str, Tensor]:
    """The arrays of a ``.pdparams`` file as tensors."""
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        unpickler = SafeUnpickler(content, _limit(path))
        made = unpickler.load()
    if isinstance(made, Mapping) and isinstance(made.get('model'), Mapping):
        made = made['model']
    if not isinstance(made, Mapping):
        raise ValueError('its content is not a dict of arrays')
    tensors = {}
    for name, described in made.items():
        # "StructuredToParameterName@@" is a dict of names beside the arrays.
        if isinstance(described, Described) and described.path.endswith(ARRAYS):
            array = array_of(described)
            unpickler.spend(64 + array.nbytes)
            # torch needs the machine's byte order, and memory that may be written to.
            tensors[str(name)] = torch.from_numpy(array.astype(array.dtype.newbyteorder('=')))
    return tensors


def _read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, in today's format or in that of torch before 1.6."""
    with path.open('rb') as file:
        if file.read(4) == b'PK\3\4':
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive, _limit(path))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read_legacy(content, _limit(path))


def _read_archive(archive: zipfile.ZipFile, limit: int) -> Any:
    """A zip archive with a pickle and a file for each storage."""
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


def _read_legacy(content: mmap.mmap, limit: int) -> Any:
    """Five pickles, of which the fourth is what was saved and the fifth lists the storages that follow."""
    storages: dict[str, tuple[Tensor, int]] = {}  # and their number of items

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            size = count * torch.empty(0, dtype=dtype).element_size()
            if size > len(content):
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
    if not isinstance(keys, list) or len(keys) != len(storages) or any(type(key) is not str for key in keys):
        raise ValueError('its storages are not those that its tensors need')
    for key in keys:
        tensor, count = storages.pop(key)
        numbers = content.read(8 + len(tensor))
        if len(numbers) != 8 + len(tensor) or int.from_bytes(numbers[:8], sys.byteorder) != count:
            raise ValueError('there are fewer numbers than it says')
        tensor.numpy()[:] = np.frombuffer(numbers, np.uint8, offset=8)
    return made


def state_dict_of(content: Any, source: object = 'the checkpoint') -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, out of its wrappers and without ``module.``.

    Args:
        content (Any): What ``read_checkpoint`` returned. Of several wrappers the first of ``WRAPPERS`` counts: weights
            go before their moving average.
        source (object): What messages call it.

    Returns:
        dict[str, Tensor]: In the file's order; what is not a tensor is left out.

    Raises:
        CheckpointError: It contains no tensors.
    """
    for _ in range(3):
        if not isinstance(content, Mapping):
            break
        inner: Mapping | None = next((content[w] for w in WRAPPERS if isinstance(content.get(w), Mapping)), None)
        if inner is None:
            break
        content = inner
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
