"""Reading checkpoint files without running what is in them, and writing them all or nothing."""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import torch
from torch import Tensor

from .pickles import CheckpointError, read_paddle, read_torch

PARTIAL = '.partial-'  # in the names of files that are being written
TIMEOUT = 20  # seconds to wait for a host to answer
LONGEST_NAME = 500  # characters of a tensor's name
WRAPPERS = ('state_dict', 'model', 'state_dict_ema', 'model_ema', 'ema_state_dict')


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
        raise CheckpointError(
            f'cannot download {url}: {error}. Download it elsewhere and give the file, or put it there as {target}'
        ) from error
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
    """The SHA-256 of a file, as 64 hexadecimal digits."""
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
        TypeError: ``source`` is neither text nor a path.
        FileNotFoundError: There is no such file.
        CheckpointError: The file is truncated, empty, no checkpoint, or would run code or fill the memory; or it
            cannot be read or downloaded.
    """
    if not isinstance(source, (str, Path)):
        raise TypeError(f'a checkpoint is given as a path or a URL, not as {source!r}')
    if str(source).startswith(('http://', 'https://')):
        path = fetch(str(source))
    else:
        path = Path(source)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'there is no checkpoint {source}')
    try:
        with path.open('rb') as file:
            start = file.read(256).lstrip()
        if not start:
            raise CheckpointError(f'{path} is empty')
        if start.lower().startswith((b'<!doctype', b'<html', b'<?xml')):
            raise CheckpointError(f'{path} is a web page, not a checkpoint: download the file behind the link')
        check_hash(path, path.name)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}') from error
    reader = {'.safetensors': _read_safetensors, '.pdparams': read_paddle}.get(path.suffix, read_torch)
    try:
        return reader(path)
    except CheckpointError as error:
        raise CheckpointError(f'{path} was refused: it {error}; nothing of it was run') from error
    except ImportError as error:
        raise CheckpointError(f'{path} needs the package safetensors: pip install safetensors') from error
    except Exception as error:  # a broken file may raise anything
        raise CheckpointError(f'{path} is not a checkpoint, or is truncated: {_first_line(error)}') from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or ['no message']
    return f'{type(error).__name__}: {lines[0][:200]}'


def state_dict_of(content: Any, source: object = 'the checkpoint') -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, out of its wrappers and without ``module.``.

    Args:
        content (Any): What ``read_checkpoint`` gave. Of several wrappers the first of ``WRAPPERS`` counts: weights go
            before their moving average.
        source (object): What messages call it.

    Returns:
        dict[str, Tensor]: In the file's order; what is no tensor is left out.

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
    if strange := next((key for key in tensors if len(key) > LONGEST_NAME or not key.isprintable()), None):
        raise CheckpointError(f'{source} is not a checkpoint: no tensor has the name {strange[:40]!a}')
    tensors = {k: v for k, v in tensors.items() if k not in ('steps', 'n_averaged')}  # of a moving average
    for prefix in ('module.', '_orig_mod.', 'module.'):
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
