"""The one unpickler for PyTorch's and PaddlePaddle's checkpoints: no file runs code.

A pickle is a program. This unpickler makes containers, numbers, strings and tensors. The few other names that a file
may ask for are never imported: what it would make of them is only written down (``Described``).
"""

import functools
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..utils.errors import CheckpointError

THEIRS = pickle._Unpickler.dispatch  # operation -> the method that carries it out
DTYPES = {f'torch.{name}': dtype for name, dtype in vars(torch).items() if isinstance(dtype, torch.dtype)}
DTYPES |= {f'torch.{name}': dtype for name, dtype in torch.storage._storage_type_to_dtype_map().items()}
DTYPES = {name: dtype for name, dtype in DTYPES.items() if not str(dtype).startswith('torch.q')}  # quantized numbers
DTYPES |= {'torch.UntypedStorage': torch.uint8, 'torch.storage.UntypedStorage': torch.uint8}
DESCRIBED = [f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('_reconstruct', 'scalar')]
DESCRIBED += ['numpy.core.numeric._frombuffer', 'numpy._core.numeric._frombuffer', 'numpy.dtype', 'numpy.ndarray']
# What training scripts and mmengine save beside the weights; histories and a schedule name methods by getattr.
DESCRIBED += ['argparse.Namespace', 'mmengine.logging.history_buffer.HistoryBuffer', 'torch.device']
DESCRIBED += ['mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler']
DESCRIBED += ['builtins.getattr', '__builtin__.getattr']


class Described:
    """What a file asks for by name, not made."""

    def __init__(self, path: str, *args: Any) -> None:
        self.path, self.args = path, args
        self.state: Any = None


class SafeUnpickler(pickle._Unpickler):
    """Python's unpickler without what could run or change anything.

    It is the one written in Python, since the one in C cannot be kept from setting attributes of what it has made
    (BUILD), reserving gigabytes for one index of its memo, and hashing a key forever.

    Args:
        file: Has ``read`` and ``readline``.
        limit (int): Bytes that all tensors may claim, counted for every name that they are given: a file may show the
            same numbers many times over, and whoever copies them needs memory for each.
        storage (Callable, optional): (key, dtype, number of items) -> a tensor of bytes.
    """

    stack: list  # of the base, which has no annotations
    metastack: list
    memo: dict[int, Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list]

    def __init__(self, file: Any, limit: int, storage: Callable[[str, torch.dtype, int], Tensor] | None = None) -> None:
        super().__init__(file, encoding='latin1')
        self.limit, self.storage = limit, storage
        plain = ['collections.Counter', 'torch.Size', 'builtins.set', '__builtin__.set']
        plain += ['mmengine.config.config.ConfigDict']
        self.allowed: dict[str, Any] = {
            **DTYPES,
            **{path: functools.partial(Described, path) for path in DESCRIBED},
            **dict.fromkeys(plain, lambda items=(): items),
            'collections.OrderedDict': lambda: {},
            '__builtin__.bytes': lambda: b'',  # how protocol 2 writes empty ones
            '_codecs.encode': self._encode,
            'torch._utils._rebuild_tensor_v2': self._tensor,
            'torch._utils._rebuild_tensor_v3': self._tensor,
            'torch._utils._rebuild_parameter': lambda tensor, *_: tensor,
        }

    def load(self) -> Any:
        try:
            return super().load()
        finally:  # this object refers to itself: what it keeps would stay until the garbage collector comes by
            self.stack, self.metastack, self.memo = [], [], {}
            self.append = self.stack.append

    def spend(self, size: int) -> None:
        """Count bytes against the limit."""
        self.limit -= size
        if self.limit < 0:
            raise CheckpointError('asks for much more memory than the file is large')

    def find_class(self, module: str, name: str) -> Any:
        path = f'{module}.{name}'
        if path not in self.allowed:
            raise CheckpointError(f'asks for {ascii(path[:80])[1:-1]}, which no checkpoint needs')
        return self.allowed[path]

    def persistent_load(self, pid: Any) -> Tensor:
        """The numbers of a storage, (n,)."""
        if self.storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != 'storage' or any(pid[5:]):
            raise CheckpointError('asks for an external object that is not a storage')
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise CheckpointError('asks for a storage of something other than numbers')
        return self.storage(key, dtype, sizes([count])[0]).view(dtype)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
        """More are ``requires_grad``, hooks and, of version 3, the dtype."""
        if not isinstance(storage, Tensor):
            raise CheckpointError('asks for a tensor of something other than numbers')
        self.spend(1 << 10)  # the object
        dtype = next((m for m in more if isinstance(m, torch.dtype)), storage.dtype)
        # A view, checked against the storage; torch's own way would let the storage grow.
        return storage.view(dtype).as_strided(sizes(shape), sizes(strides), *sizes([offset]))

    def _encode(self, string: str, encoding: Any) -> bytes:
        """How protocol 2 writes bytes."""
        if encoding != 'latin1':
            raise CheckpointError('asks for an encoding that no checkpoint needs')
        self.spend(len(string))
        return string.encode('latin1')

    def _set(self, items: list) -> None:
        mapping = self.stack[-1]
        if type(mapping) is not dict or len(items) % 2:
            raise CheckpointError('sets items of something other than a dict')
        for key, value in zip(items[::2], items[1::2]):
            # The hash of nested tuples, or of an endless int, may take forever.
            if not (key is None or isinstance(key, (str, bytes, float)) or isinstance(key, int) and abs(key) < 1 << 64):
                raise CheckpointError(f'contains a dict with a key of type {type(key).__name__}')
            if isinstance(value, Tensor):
                self.spend(64 + value.numel() * value.element_size())
            mapping[key] = value

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, Described):
            made.state = state
        elif type(made) is not dict:  # the attributes of an ordered dict are of no use
            raise CheckpointError(f'sets attributes of a {type(made).__name__}')

    def refuse(self) -> None:
        raise CheckpointError('contains an operation that no checkpoint needs')

    dispatch: ClassVar[Any] = {
        **THEIRS,
        **dict.fromkeys(pickle.INST + pickle.OBJ + pickle.NEWOBJ_EX + pickle.EXT1 + pickle.EXT2 + pickle.EXT4, refuse),
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.NEWOBJ[0]: THEIRS[pickle.REDUCE[0]],
        # Sets become lists: nobody asks them anything, and a list needs no hashes.
        pickle.EMPTY_SET[0]: THEIRS[pickle.EMPTY_LIST[0]],
        pickle.ADDITEMS[0]: THEIRS[pickle.APPENDS[0]],
        pickle.FROZENSET[0]: THEIRS[pickle.TUPLE[0]],
        pickle.BYTEARRAY8[0]: THEIRS[pickle.BINBYTES8[0]],  # which does not reserve the memory first
    }


def sizes(values: Any) -> list[int]:
    """Return sizes, strides or an offset, checked."""
    possible = isinstance(values, (tuple, list)) and len(values) <= 64
    if not possible or not all(isinstance(n, int) and 0 <= n < 1 << 62 for n in values):
        raise CheckpointError('contains a tensor of an impossible shape')
    return list(values)
