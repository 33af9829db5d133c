"""Checkpoints that are pickles, PyTorch's and PaddlePaddle's, read without running them.

A pickle is a program. ``pickle.Unpickler`` can be told which names it may look up, but a few bytes still make it fill
the memory, hash a key for ever or set attributes of what it looked up, and torch's readers are built upon it.
``Machine`` takes the operations one by one instead and carries out those that make numbers, text, containers, arrays
and tensors.
"""

import io
import mmap
import pickletools
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional, Union, cast

import numpy as np
import torch
from torch import Tensor

MOST_OPERATIONS = 4_000_000  # of a pickle; a model of a thousand tensors, with its optimizer's, takes 0.2 million
MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch before 1.6 starts with
LITERALS = {
    *('BININT', 'BININT1', 'BININT2', 'LONG1', 'LONG4', 'BINFLOAT', 'INT', 'LONG', 'FLOAT'),
    *('BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'UNICODE'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'),
    *('STRING', 'BINSTRING', 'SHORT_BINSTRING'),  # of Python 2
}
STORAGES = {
    'torch.DoubleStorage': torch.float64,
    'torch.FloatStorage': torch.float32,
    'torch.HalfStorage': torch.float16,
    'torch.BFloat16Storage': torch.bfloat16,
    'torch.LongStorage': torch.int64,
    'torch.IntStorage': torch.int32,
    'torch.ShortStorage': torch.int16,
    'torch.CharStorage': torch.int8,
    'torch.ByteStorage': torch.uint8,
    'torch.BoolStorage': torch.bool,
    'torch.ComplexFloatStorage': torch.complex64,
    'torch.ComplexDoubleStorage': torch.complex128,
    'torch.UntypedStorage': torch.uint8,
    'torch.storage.UntypedStorage': torch.uint8,
}
# Classes of training scripts and mmengine's hooks whose instances are of no use here.
IGNORED = ('mmengine.logging.history_buffer.HistoryBuffer', 'argparse.Namespace')


class CheckpointError(RuntimeError):
    """A file that is no checkpoint, or one that does not fit the model; the message says which and why."""


class _Name(NamedTuple):
    """A name that a pickle looks up; what it stands for is never touched."""

    path: str


class _Ignored:
    """Takes the place of an instance of no use."""

    def build(self, state: Any) -> None:
        """What the instance would hold is of no use either."""


class _Dtype:
    """A numpy dtype: plain numbers only, checked before numpy sees them."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r'[biufc]\d{1,2}', code):
            raise CheckpointError(f'would make an array of {_said(code)}, which are no numbers')
        self.code, self.order = code, '='

    def build(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ('<', '>') else '='


class _Array:
    """A numpy array, made of checked parts."""

    value: Optional[np.ndarray] = None

    def build(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, 'F' if fortran else 'C')

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any) -> '_Array':
        if not isinstance(dtype, _Dtype) or not isinstance(content, (bytes, bytearray)):
            raise CheckpointError('would make an array of something else than bytes')
        array = np.frombuffer(content, np.dtype(dtype.order + dtype.code))
        self.value = array.reshape(_sizes(shape), order='F' if order == 'F' else 'C')
        return self

    @property
    def nbytes(self) -> int:
        return 0 if self.value is None else self.value.nbytes

    def tensor(self) -> Tensor:
        if self.value is None:
            raise CheckpointError('would make an array of nothing')
        return torch.from_numpy(self.value.astype(self.value.dtype.newbyteorder('=')))


class _Storage(NamedTuple):
    """Numbers in memory: (n,) of uint8, and what they are."""

    content: Tensor
    dtype: torch.dtype


class Machine:
    """Carries out what a pickle may do.

    Args:
        room (int): Bytes that all arrays and tensors may claim, counted for every name that they are given: a file may
            show the same numbers many times over, and whoever copies them needs memory for each.
        storage (Callable, optional): (key, dtype, number of items) -> a tensor of bytes.
    """

    def __init__(self, room: int, storage: Optional[Callable[[str, torch.dtype, int], Tensor]] = None) -> None:
        self.room, self.storage = room, storage
        self.makers: dict[str, Callable] = {
            'collections.OrderedDict': dict,
            'collections.Counter': lambda counts=(): counts,
            'builtins.set': lambda items=(): items,
            '__builtin__.set': lambda items=(): items,
            'builtins.getattr': self._attribute,
            '__builtin__.getattr': self._attribute,
            '_codecs.encode': self._encode,
            'torch.Size': lambda sizes=(): sizes,
            'torch.device': lambda *device: device,
            'torch._utils._rebuild_tensor_v2': self._tensor,
            'torch._utils._rebuild_tensor_v3': self._tensor,
            'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
            'numpy.dtype': _Dtype,
            **{path: lambda *_: _Ignored() for path in IGNORED},
        }
        for core in ('numpy.core', 'numpy._core'):
            self.makers[f'{core}.multiarray._reconstruct'] = lambda *_: _Array()
            self.makers[f'{core}.multiarray.scalar'] = lambda *_: None  # single numbers are of no use here
            self.makers[f'{core}.numeric._frombuffer'] = lambda *parts: _Array().fill(*parts)

    def spend(self, size: int) -> None:
        """Take bytes from ``room``."""
        self.room -= size
        if size < 0 or self.room < 0:
            raise CheckpointError('would take much more memory than the file is large')

    def load(self, file: Union[BinaryIO, mmap.mmap]) -> Any:
        """What the pickle at the file's position makes; the file is left behind it.

        Raises:
            CheckpointError: It would do something else than make numbers.
            Exception: Of many kinds, where it is no pickle or is cut.
        """
        stack: list[Any] = []
        below: list[list] = []  # the stacks under the marks
        memo: dict[int, Any] = {}

        def marked() -> list:
            nonlocal stack
            items, stack = stack, below.pop()
            return items

        operations: Iterator[tuple[Any, Any, Any]] = pickletools.genops(cast(Any, file))
        for count, (operation, given, _) in enumerate(operations):
            if count > MOST_OPERATIONS:
                raise CheckpointError(f'has more than {MOST_OPERATIONS} operations')
            if operation.name in LITERALS:
                stack.append(given)
                continue
            match operation.name:
                case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
                    memo[given] = stack[-1]
                case 'MEMOIZE':
                    memo[len(memo)] = stack[-1]
                case 'BINGET' | 'LONG_BINGET' | 'GET':
                    stack.append(memo[given])
                case 'NONE':
                    stack.append(None)
                case 'NEWTRUE' | 'NEWFALSE':
                    stack.append(operation.name == 'NEWTRUE')
                case 'EMPTY_TUPLE':
                    stack.append(())
                case 'EMPTY_LIST' | 'EMPTY_SET':  # nobody asks a set anything: a list needs no hashes
                    stack.append([])
                case 'EMPTY_DICT':
                    stack.append({})
                case 'MARK':
                    below.append(stack)
                    stack = []
                case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                    size = int(operation.name[-1])
                    stack[-size:] = [tuple(stack[-size:])]
                case 'TUPLE' | 'FROZENSET':
                    items = marked()
                    stack.append(tuple(items))
                case 'LIST':
                    items = marked()
                    stack.append(items)
                case 'DICT':
                    items = marked()
                    stack.append({})
                    self._set(stack[-1], items)
                case 'APPEND':
                    item = stack.pop()
                    _list(stack[-1]).append(item)
                case 'APPENDS' | 'ADDITEMS':
                    items = marked()
                    _list(stack[-1]).extend(items)
                case 'SETITEM':
                    items = stack[-2:]
                    del stack[-2:]
                    self._set(stack[-1], items)
                case 'SETITEMS':
                    items = marked()
                    self._set(stack[-1], items)
                case 'POP':
                    if stack:
                        stack.pop()
                    else:
                        marked()
                case 'POP_MARK':
                    marked()
                case 'DUP':
                    stack.append(stack[-1])
                case 'GLOBAL':
                    stack.append(self._named('.'.join(given.split(' '))))
                case 'STACK_GLOBAL':
                    name, module = stack.pop(), stack.pop()
                    stack.append(self._named(f'{_said(module)}.{_said(name)}'))
                case 'REDUCE' | 'NEWOBJ':
                    args = stack.pop()
                    stack[-1] = self._make(stack[-1], args)
                case 'BUILD':
                    state = stack.pop()
                    self._build(stack[-1], state)
                case 'BINPERSID':
                    stack[-1] = self._stored(stack[-1])
                case 'PROTO' | 'FRAME':
                    pass
                case 'STOP':
                    return stack.pop()
                case name:
                    raise CheckpointError(f'would carry out {name}, which no checkpoint needs')
        raise CheckpointError('ends too early')

    def _set(self, mapping: Any, items: list) -> None:
        if type(mapping) is not dict or len(items) % 2:
            raise CheckpointError('would set items of something else than a dict')
        for key, value in zip(items[::2], items[1::2]):
            # The hash of a tuple, or of an endless number, may take for ever.
            if not (key is None or isinstance(key, (str, bytes, float)) or isinstance(key, int) and abs(key) < 1 << 64):
                raise CheckpointError(f'would make a dict with the key {_said(key)}')
            if isinstance(value, (Tensor, _Array)):
                self.spend(64 + (value.nbytes if isinstance(value, _Array) else value.numel() * value.element_size()))
            mapping[key] = value

    def _named(self, path: str) -> Union[_Name, torch.dtype]:
        module, _, name = path.rpartition('.')
        if module == 'torch' and isinstance(dtype := vars(torch).get(name), torch.dtype):
            return dtype
        if path in self.makers or path in STORAGES or path in ('numpy.ndarray', 'torch.Tensor'):
            return _Name(path)
        raise CheckpointError(f'would make {_said(path)}, which is no tensor')

    def _make(self, name: Any, args: Any) -> Any:
        if not isinstance(name, _Name) or name.path not in self.makers or not isinstance(args, tuple):
            raise CheckpointError(f'would call {_said(name)}')
        if name.path == 'collections.OrderedDict' and args:
            raise CheckpointError('would make a dict out of a list, as Python 2 did')
        return self.makers[name.path](*args)

    @staticmethod
    def _build(made: Any, state: Any) -> None:
        if isinstance(made, (_Array, _Dtype, _Ignored)):
            made.build(state)
        elif type(made) is not dict:  # an ordered dict's attributes are of no use
            raise CheckpointError(f'would change {_said(made)}')

    def _stored(self, given: Any) -> _Storage:
        if self.storage is None or not isinstance(given, tuple) or len(given) < 5 or given[0] != 'storage':
            raise CheckpointError('would load something else than tensors')
        _, kind, key, _, count, *view = given
        if not isinstance(kind, _Name) or kind.path not in STORAGES or not isinstance(key, str) or any(view):
            raise CheckpointError(f'would load numbers of {_said(kind)}')
        dtype = STORAGES[kind.path]
        return _Storage(self.storage(key, dtype, _sizes([count])[0]), dtype)

    def _tensor(self, storage: Any, offset: Any, sizes: Any, strides: Any, *more: Any) -> Tensor:
        """More are ``requires_grad``, hooks and, of version 3, the dtype."""
        if not isinstance(storage, _Storage):
            raise CheckpointError('would make a tensor of something else than numbers')
        self.spend(1 << 10)  # the object
        dtype = next((m for m in more if isinstance(m, torch.dtype)), storage.dtype)
        # Checked against what there is; torch's own way would let the storage grow.
        return storage.content.view(dtype).as_strided(_sizes(sizes), _sizes(strides), *_sizes([offset]))

    @staticmethod
    def _attribute(owner: Any, name: Any) -> _Name:
        """By which a history names its methods."""
        if not isinstance(owner, _Name) or owner.path not in IGNORED:
            raise CheckpointError(f'would look up {_said(name)}')
        return owner

    def _encode(self, text: str, encoding: str = 'latin1') -> bytes:
        """How pickles of protocol 2 write bytes."""
        if encoding != 'latin1' or not isinstance(text, str):
            raise CheckpointError(f'would encode as {_said(encoding)}')
        self.spend(len(text))
        return text.encode('latin1')


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise CheckpointError('would append to something else than a list')
    return value


def _sizes(values: Any) -> list[int]:
    """Sizes, strides or an offset, checked."""
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise CheckpointError(f'would make a tensor of the shape {_said(values)}')
    if not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in values):
        raise CheckpointError('would make a tensor of an impossible shape')
    return list(values)


def _said(value: Any) -> str:
    """How messages name something of a file, whatever it is: short, and without looking into it."""
    value = value.path if isinstance(value, _Name) else value
    if not isinstance(value, str):
        return f'a {type(value).__name__}'
    return ascii(value[:80])[1:-1] + ('...' if len(value) > 80 else '')


def _room(path: Path) -> int:
    """What the tensors of a file may claim: weights may be tied, but not a thousand times."""
    return 8 * path.stat().st_size + (16 << 20)


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, in today's format or in that of torch before 1.6; see ``read_checkpoint``."""
    with path.open('rb') as file:
        if file.read(4) == b'PK\3\4':
            with zipfile.ZipFile(path) as archive:
                return _read_archive(archive, _room(path))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _read_old(content, _room(path))


def _read_archive(archive: zipfile.ZipFile, room: int) -> Any:
    names = set(archive.namelist())
    root = next((n.removesuffix('data.pkl') for n in archive.namelist() if n.endswith('/data.pkl')), None)
    if root is None:
        raise ValueError('there is no data.pkl in the archive')
    if f'{root}constants.pkl' in names:
        raise CheckpointError('is a TorchScript program')

    def read(name: str) -> bytes:
        entry = archive.getinfo(root + name)
        if entry.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError('is compressed, as torch does not write it: unpacked it may be of any size')
        machine.spend(entry.file_size)
        return archive.read(entry)

    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            content = bytearray(read(f'data/{key}'))
            storages[key] = (
                torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)
            )
        return storages[key]

    machine = Machine(room, storage)
    if f'{root}byteorder' in names and read('byteorder') != sys.byteorder.encode():
        raise ValueError('it was written on a machine of another byte order')
    return machine.load(io.BytesIO(read('data.pkl')))


def _read_old(content: mmap.mmap, room: int) -> Any:
    storages: dict[str, tuple[Tensor, int]] = {}  # and their number of items

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            size = count * torch.empty(0, dtype=dtype).element_size()
            if size > len(content):
                raise ValueError('there are fewer numbers than it says')
            machine.spend(size)
            storages[key] = torch.zeros(size, dtype=torch.uint8), count
        return storages[key][0]

    machine = Machine(room, storage)
    if machine.load(content) != MAGIC:
        raise ValueError('it does not start as a file of torch does')
    _, system = machine.load(content), machine.load(content)
    if not isinstance(system, dict) or system.get('little_endian') is not (sys.byteorder == 'little'):
        raise ValueError('it was written on a machine of another byte order')
    made = machine.load(content)
    keys = machine.load(content)
    if not isinstance(keys, list) or len(keys) != len(storages) or any(type(key) is not str for key in keys):
        raise ValueError('its storages are not those that its tensors need')
    for key in keys:
        tensor, count = storages.pop(key)
        numbers = content.read(8 + len(tensor))
        if len(numbers) != 8 + len(tensor) or int.from_bytes(numbers[:8], sys.byteorder) != count:
            raise ValueError('there are fewer numbers than it says')
        tensor.numpy()[:] = np.frombuffer(numbers, np.uint8, offset=8)
    return made


def read_paddle(path: Path) -> dict[str, Tensor]:
    """The arrays of a ``.pdparams`` file as tensors; see ``read_checkpoint``."""
    with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        made = Machine(_room(path)).load(content)
    if isinstance(made, Mapping) and isinstance(made.get('model'), Mapping):
        made = made['model']
    if not isinstance(made, Mapping):
        raise ValueError(f'it holds {_said(made)}')
    # "StructuredToParameterName@@" is a dict of names beside the arrays.
    return {str(k): v.tensor() for k, v in made.items() if isinstance(v, _Array) and v.value is not None}
