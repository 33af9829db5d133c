"""Files and arguments that are made to break what reads them, and workers that are watched while they try.

    FUZZ_CASES=10000 python tests/hostile.py checkpoints   # mutated and malicious checkpoint files
    FUZZ_CASES=4000 python tests/hostile.py arguments      # constructor arguments
    FUZZ_CASES=400 python tests/hostile.py options         # --cfg-options
    python tests/hostile.py checkpoints --show 1234        # write that file to hostile/ and try it here

A case is a number: the same number makes the same case. Each is tried in a worker process with a limit on its address
space; one that dies, hangs, fills memory, runs what is in a file or lets an error pass that is not the package's own
counts as a failure, and is named.
"""

import argparse
import collections
import io
import json
import os
import pickle
import pickletools
import random
import resource
import select
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # of a worker

SECONDS = 20  # one case may take
MEMORY = 64 << 20  # bytes that reading a file may add to the process, beside 16 times the size of the file
ADDRESS_SPACE = 6 << 30  # bytes beyond what a worker has when it starts
WORDS = (
    '', '²', '٣', '\ud800', '\x1b[31m', 'x' * 100_000, 'backbone', 'backbone.', 'module.', 'head.weight', 'stages.9.9.9',
    'blocks.²', 'blocks.0.linear_tokens.weight', 'stem.proj.weight', 'state_dict', 'model', 'weight', '__class__',
    'blocks.99.norm1.alpha', '../../x', 'os', 'system', 'torch', 'numpy', 'cpu', 'cuda:99', 'meta',
)  # fmt: skip
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    255,
    256,
    65535,
    1 << 20,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**50,
    2**63 - 1,
    -(2**31),
    -(2**63),
)


# Pickles, written by hand ---------------------------------------------------------------------------------------------
# Every function gives the bytes that put one object onto the stack.


def text(value: str) -> bytes:
    encoded = value.encode('utf-8', 'surrogatepass')
    return b'X' + struct.pack('<I', len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes(value.bit_length() // 8 + 1, 'little', signed=True)
    return b'\x8a' + bytes([len(encoded)]) + encoded


def several(*items: bytes) -> bytes:
    return b'(' + b''.join(items) + b't'


def name_of(module: str, name: str) -> bytes:
    return f'c{module}\n{name}\n'.encode()


def call(module: str, name: str, *args: bytes) -> bytes:
    return name_of(module, name) + several(*args) + b'R'


def storage(key: str = '0', count: int = 4, kind: str = 'FloatStorage', device: str = 'cpu') -> bytes:
    return several(text('storage'), name_of('torch', kind), text(key), text(device), number(count)) + b'Q'


def tensor(
    shape=(2, 2), strides=(2, 1), offset: int = 0, storage_: bytes = b'', rebuild: str = '_rebuild_tensor_v2'
) -> bytes:
    sizes, steps = (several(*map(number, s)) for s in (shape, strides))
    return call('torch._utils', rebuild, storage_ or storage(), number(offset), sizes, steps, b'\x89', b'}')


def array(code: str = 'f4', shape=(2, 2), content: bytes = b'\0' * 16) -> bytes:
    sizes = several(*map(number, shape))
    dtype = call('numpy', 'dtype', text(code), number(0), number(1)) + several(number(3), text('<'), *[b'N'] * 3) + b'b'
    made = call('numpy.core.multiarray', '_reconstruct', name_of('numpy', 'ndarray'), several(number(0)), b'C\x01b')
    data = b'B' + struct.pack('<I', len(content)) + content
    return made + several(number(1), sizes, dtype, b'\x89', data) + b'b'


def doubled(depth: int, empty: bytes = b')', pair: bytes = b'\x86') -> bytes:
    """A tuple of two of a tuple of two of ...: small in memory, endless to whoever walks through it."""
    return empty + b''.join(b'q\xfeh\xfe' + pair for _ in range(depth))


def attacks(canary: Path) -> dict[str, bytes]:
    """Objects that would do harm where they are made: each leaves the file ``canary`` if it runs, or is a bomb."""
    path, shell, code = str(canary), f'touch {canary}', f'open({str(canary)!r}, "w")'
    imported = call('builtins', '__import__', text('os'))
    found = {
        f'{module}.{name}': call(module, name, *args)
        for module, name, args in [
            ('os', 'system', [text(shell)]),
            ('posix', 'system', [text(shell)]),
            ('nt', 'system', [text(shell)]),
            ('os', 'popen', [text(shell)]),
            ('os', 'mkdir', [text(path)]),
            ('subprocess', 'call', [text(shell), number(-1), b'N', b'N', b'N', b'N', b'N', b'\x88', b'\x88']),
            ('subprocess', 'getoutput', [text(shell)]),
            ('builtins', 'eval', [text(code)]),
            ('builtins', 'exec', [text(code)]),
            ('__builtin__', 'eval', [text(code)]),
            ('builtins', 'open', [text(path), text('w')]),
            ('io', 'open', [text(path), text('w')]),
            ('_io', 'FileIO', [text(path), text('w')]),
            ('codecs', 'open', [text(path), text('w')]),
            ('pathlib', 'Path.touch', [call('pathlib', 'Path', text(path))]),
            ('pty', 'spawn', [text(shell)]),
            ('runpy', 'run_path', [text(path)]),
            ('timeit', 'timeit', [text(code)]),
            ('code', 'InteractiveInterpreter.runcode', [text(code)]),
            ('webbrowser', 'open', [text(path)]),
            ('shutil', 'copy', [text('/etc/hostname'), text(path)]),
            ('logging', 'FileHandler', [text(path)]),
            ('functools', 'partial', [name_of('os', 'system'), text(shell)]),
            ('copyreg', '__newobj__', [name_of('builtins', 'open'), text(path), text('w')]),
            ('copyreg', '_reconstructor', [name_of('os', 'system'), name_of('builtins', 'object'), text(shell)]),
            ('torch', 'load', [text(path)]),
            ('torch', 'save', [number(1), text(path)]),
            ('torch.hub', 'load', [text(path), text('x')]),
            ('torch.jit', 'load', [text(path)]),
            ('torch', 'ops.load_library', [text(path)]),
            ('torch.serialization', 'os.system', [text(shell)]),
            ('torch', 'serialization.os.system', [text(shell)]),
            ('torch._utils', 'sys.modules.__getitem__', [text('os')]),
            ('torch', 'Tensor', [number(2**40)]),
            ('torch', 'Tensor', [number(2**27)]),
            ('torch', 'Size', [several(*[number(2**62)] * 40)]),
            ('torch', 'empty', [number(2**40)]),
            ('torch', 'FloatStorage', [number(2**30)]),
            ('torch._utils', '_rebuild_qtensor', [number(1)] * 7),
            ('torch._utils', '_rebuild_sparse_tensor', [number(1)] * 2),
            ('torch._utils', '_rebuild_device_tensor_from_numpy', [number(1)] * 4),
            ('torch._tensor', '_rebuild_from_type_v2', [name_of('os', 'system'), name_of('torch', 'Tensor'), several(text(shell)), b'}']),
            ('numpy', 'load', [text(path)]),
            ('numpy', 'memmap', [text(path), text('u1'), text('w+'), number(0), number(4)]),
            ('numpy', 'save', [text(path), number(1)]),
            ('numpy', 'ndarray', [several(number(2**40))]),
            ('numpy', 'zeros', [number(2**40)]),
            ('numpy.testing._private.utils', 'runstring', [text(code), b'}']),
            ('numpy.core.multiarray', '_reconstruct', [name_of('numpy', 'ndarray'), several(number(2**40)), text('f8')]),
            ('numpy.core.multiarray', 'scalar', [call('numpy', 'dtype', text('O8'), number(0), number(1)), b'C\x08' + b'A' * 8]),
            ('numpy.core.numeric', '_frombuffer', [b'C\x04AAAA', call('numpy', 'dtype', text('f4')), several(number(2**62), number(4)), text('C')]),
            ('mlp_backbones.checkpoints.files', 'written_whole', [text(path)]),
            ('mmengine.fileio', 'put_text', [text('x'), text(path)]),
            ('argparse', 'Namespace', []),
            ('argparse', 'FileType', [text('w')]),
            ('collections', 'OrderedDict', [several(several(name_of('os', 'system'), text(shell)))]),
            ('_codecs', 'encode', [text('x'), text('zlib')]),
            ('_codecs', 'encode', [text('\u4e00'), text('latin1')]),
            ('builtins', 'getattr', [name_of('builtins', 'open'), text('__call__')]),
            ('builtins', 'bytearray', [number(2**40)]),
            ('builtins', 'set', [doubled(40)]),
            ('builtins', 'complex', [text('x')]),
        ]
    }  # fmt: skip
    chain = call('builtins', 'getattr', imported, text('system'))
    found['getattr chain'] = chain + several(text(shell)) + b'R'
    found['a call of a call'] = call('operator', 'attrgetter', text('system')) + several(imported) + b'R'
    found['inst'] = b'(' + text(shell) + b'ios\nsystem\n'
    found['obj'] = b'(' + name_of('os', 'system') + text(shell) + b'o'
    found['newobj'] = name_of('torch', 'Tensor') + several(number(2**40)) + b'\x81'
    found['newobj of a file'] = name_of('io', 'FileIO') + several(text(path), text('w')) + b'\x81'
    found['newobj_ex'] = name_of('torch', 'Tensor') + b')' + b'}' + text('size') + number(2**40) + b's' + b'\x92'
    found['stack_global'] = b'\x8c\x02os\x8c\x06system\x93' + several(text(shell)) + b'R'
    found['extension'] = b'\x82\x01' + several(text(shell)) + b'R'
    found['a name of the reader'] = name_of('torch', 'hostile')
    for owner in (('torch', 'Tensor'), ('torch._utils', '_rebuild_tensor_v2'), ('collections', 'OrderedDict'),
                  ('numpy', 'dtype'), ('numpy', 'ndarray'), ('argparse', 'Namespace'), ('_codecs', 'encode'),
                  ('torch', 'float32'), ('torch', 'Size'), ('mmengine.logging.history_buffer', 'HistoryBuffer')):  # fmt: skip
        state = several(b'N', b'}' + text('hostile') + name_of('numpy', 'ndarray') + b's')
        found[f'attributes of {owner[1]}'] = name_of(*owner) + state + b'b'
        found[f'the dict of {owner[1]}'] = name_of(*owner) + b'}' + text('hostile') + number(1) + b's' + b'b'
    found['attributes of a tensor'] = tensor() + several(b'N', b'}' + text('hostile') + number(1) + b's') + b'b'
    found['state of a tensor'] = (
        tensor() + several(storage(), number(0), several(number(2**40)), several(number(1))) + b'b'
    )
    for shape, strides, offset in [
        ((2**20, 2**20), (0, 0), 0),
        ((2**14, 2**14), (0, 0), 0),
        ((2**62,), (0,), 0),
        ((2**62, 4), (1, 1), 0),
        ((2**40,), (1,), 0),
        ((2, 2), (2, 1), 2**62),
        ((2, 2), (-2, -1), 3),
        ((-2, 2), (2, 1), 0),
        ((2, 2), (2,), 0),
        ((0, 2**62), (2, 1), 0),
        ((0, 2**62, 2**62), (2, 1, 1), 0),
        ((1,) * 70, (1,) * 70, 0),
        ((), (), -1),
        ((2, 2), (2**62, 2**62), 0),
    ]:
        found[f'tensor {str(shape)[:20]} {str(strides)[:20]} {offset}'] = tensor(shape, strides, offset)
    for arguments in [
        dict(count=2**40), dict(count=-1), dict(count=2**63), dict(count=0), dict(key='../0'), dict(key='x'), dict(device='meta'),
        dict(device='cuda:7'), dict(device='hostile'), dict(kind='UntypedStorage'), dict(kind='QInt8Storage'),
        dict(kind='HostileStorage'), dict(kind='ComplexDoubleStorage'), dict(kind='storage'),
    ]:  # fmt: skip
        found[f'storage {arguments}'] = tensor(storage_=storage(**arguments))
        found[f'bare storage {arguments}'] = storage(**arguments)
    for given in (
        b'N',
        text('x'),
        number(3),
        b')',
        several(text('module'), name_of('os', 'system'), text('x'), text('y')),
    ):
        found[f'persistent id {given!r}'] = given + b'Q'
    found['persistent id in text'] = b'Phostile\n'
    for code, shape, size in [
        ('f4', (2**40,), 16), ('f4', (2**62, 4), 16), ('f4', (-1,), 16), ('f4', (2, -1), 16), ('f4', (), 4), ('f4', (0, 2**62), 0),
        ('f16', (2,), 32), ('c32', (1,), 32), ('c8', (2,), 16), ('u8', (2,), 16), ('u4', (4,), 16), ('f2', (8,), 16), ('b1', (16,), 16),
        ('i99', (1,), 16), ('O8', (2,), 16), ('V16', (1,), 16), ('U4', (1,), 16), ('M8', (2,), 16), ('f4,f4', (2,), 16),
        ('b1', (1,) * 70, 1), ('f4', (0,) * 30, 0), ('f4', (4,), 15),
    ]:  # fmt: skip
        found[f'array {code} {str(shape)[:20]} {size}'] = array(code, shape, b'\x7f' * size)
    found['memo of 2**31'] = number(1) + b'r' + struct.pack('<I', 2**31 - 1)
    found['memo of 2**26'] = number(1) + b'r' + struct.pack('<I', 2**26)
    found['bytes of 2**40'] = b'\x8e' + struct.pack('<Q', 2**40)
    found['bytes of 2**31'] = b'B' + struct.pack('<I', 2**31 - 1)
    found['bytearray of 2**34'] = b'\x96' + struct.pack('<Q', 2**34)
    found['text of 2**33'] = b'\x8d' + struct.pack('<Q', 2**33)
    found['frame of 2**62'] = b'\x95' + struct.pack('<Q', 2**62)
    found['long of 2**31'] = b'\x8b' + struct.pack('<i', 2**31 - 1)
    found['long of -1'] = b'\x8b' + struct.pack('<i', -1)
    found['digits'] = b'I' + b'9' * 50_000 + b'\n'
    found['long digits'] = b'L' + b'9' * 50_000 + b'L\n'
    found['laughing lists'] = b']' + b''.join(b'q\xfe]h\xfeah\xfea' for _ in range(60))
    found['laughing tuples'] = doubled(60)
    found['a laughing key'] = b'}' + doubled(60) + number(1) + b's'
    found['a laughing set'] = b'\x8f(' + doubled(60) + b'\x90'
    found['a laughing frozenset'] = b'(' + doubled(60) + b'\x91'
    found['a laughing name'] = call('numpy', 'dtype', doubled(60))
    found['a laughing attribute'] = call('builtins', 'getattr', name_of('argparse', 'Namespace'), doubled(60))
    found['a laughing encoding'] = call('_codecs', 'encode', text('x'), doubled(60))
    found['a laughing shape'] = array(shape=()) + several(number(1), doubled(60), b'N', b'\x89', b'C\x00') + b'b'
    found['nested lists'] = b']' * 100_000 + b'a' * 99_999
    found['nested tuples'] = b')' + b'\x85' * 100_000
    found['nested dicts'] = b''.join(b'}' + text('a') for _ in range(20_000)) + b'N' + b's' * 20_000
    found['many empty dicts'] = b'(' + b'}' * 300_000 + b't'
    found['copies of a text'] = (
        text('x' * 100_000) + b'q\xfe(' + 3_000 * (name_of('_codecs', 'encode') + b'h\xfe\x85R') + b't\x86'
    )
    found['copies of an array'] = b'(' + array('f4', (25_000,), bytes(100_000)) + b'q\xfe' + 3_000 * b'h\xfe' + b't'
    found['one array under many names'] = (
        array('f4', (25_000,), bytes(100_000))
        + b'q\xfe0}('
        + b''.join(text(str(i)) + b'h\xfe' for i in range(3_000))
        + b'u'
    )
    found['a deep key'] = b'}' + b')' + b'\x85' * 50_000 + number(1) + b's'
    return found


def operations(content: bytes) -> list[bytes]:
    """A pickle cut into its operations."""
    starts = [position for _, _, position in pickletools.genops(content)] + [len(content)]
    return [content[a:b] for a, b in zip(starts, starts[1:])]


def mutate_pickle(rng: random.Random, content: bytes, canary: Path) -> bytes:
    try:
        ops = operations(content)
    except Exception:
        return mutate_bytes(rng, content)
    if len(ops) < 4:
        return mutate_bytes(rng, content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(2, len(ops) - 1)
        kind = rng.choice(
            ['drop', 'repeat', 'swap', 'take', 'number', 'word', 'attack', 'attack', 'name', 'raw', 'memo', 'value']
        )
        if kind == 'drop':
            del ops[at : at + rng.choice([1, 1, 2, 10])]
        elif kind == 'repeat':
            ops[at:at] = ops[at : at + rng.choice([1, 2, 10])] * rng.choice([1, 2, 100])
        elif kind == 'swap':
            other = rng.randrange(2, len(ops) - 1)
            ops[at], ops[other] = ops[other], ops[at]
        elif kind == 'take':
            ops.insert(at, rng.choice(ops))
        elif kind == 'raw':
            ops.insert(at, bytes([rng.randrange(256)]))
        elif kind == 'memo':
            ops.insert(
                at,
                rng.choice([b'h\x01', b'q\x01', b'r' + struct.pack('<I', rng.choice([2**20, 2**25, 2**31])), b'\x94']),
            )
        elif kind == 'attack':
            ops.insert(at, rng.choice(list(attacks(canary).values())))
        else:
            first = {'number': b'KMJ\x8aG', 'word': b'X\x8cCB', 'name': b'c', 'value': b'}])N\x88'}[kind]
            places = [i for i, op in enumerate(ops) if op[:1] in [first[j : j + 1] for j in range(len(first))]]
            if not places:
                continue
            at = rng.choice(places)
            if kind == 'number':
                ops[at] = number(rng.choice(NUMBERS)) if rng.random() < 0.9 else b'G' + struct.pack('>d', float('nan'))
            elif kind == 'word':
                ops[at] = text(rng.choice(WORDS))
            elif kind == 'name':
                ops[at] = name_of(*rng.choice([('torch', 'LongStorage'), ('torch', 'HalfStorage'), ('torch', 'Tensor'),
                    ('torch._utils', '_rebuild_parameter'), ('collections', 'OrderedDict'), ('os', 'system'),
                    ('numpy', 'ndarray'), ('torch', 'float64'), ('torch', 'BFloat16Storage'), ('torch', 'BoolStorage'),
                    ('torch', 'Size'), ('torch', 'device'), ('numpy', 'dtype'), ('torch', 'ComplexFloatStorage')]))  # fmt: skip
            else:
                ops[at] = rng.choice(
                    [b'}', b']', b')', b'N', b'\x88', tensor(), array(), rng.choice(list(attacks(canary).values()))]
                )
    return b''.join(ops)


# Bytes, archives and headers ------------------------------------------------------------------------------------------


def mutate_bytes(rng: random.Random, content: bytes, other: bytes = b'') -> bytes:
    data = bytearray(content or b'\0')
    for _ in range(rng.choice([1, 1, 2, 3, 10])):
        kind = rng.choice(
            ['flip', 'flip', 'byte', 'integer', 'cut', 'drop', 'repeat', 'move', 'insert', 'splice', 'zeros']
        )
        # Heads and tails say how the rest is read: half of the mutations go there.
        span = min(len(data), rng.choice([64, 512, len(data), len(data)]))
        at = rng.randrange(span) if rng.random() < 0.7 else len(data) - 1 - rng.randrange(span)
        size = min(rng.choice([1, 4, 16, 256, 4096]), len(data) - at)
        if kind == 'flip':
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 'byte':
            data[at] = rng.randrange(256)
        elif kind == 'integer':
            width = rng.choice('<H <I <Q >I'.split())
            packed = struct.pack(width, rng.choice(NUMBERS) & (256 ** struct.calcsize(width) - 1))
            data[at : at + len(packed)] = packed
        elif kind == 'cut':
            del data[at:]
        elif kind == 'drop':
            del data[at : at + size]
        elif kind == 'repeat':
            data[at:at] = data[at : at + size] * rng.choice([1, 1, 50])
        elif kind == 'move':
            piece = data[at : at + size]
            del data[at : at + size]
            to = rng.randrange(len(data) + 1)
            data[to:to] = piece
        elif kind == 'insert':
            data[at:at] = rng.randbytes(size)
        elif kind == 'splice' and other:
            data[at:] = other[rng.randrange(len(other)) :]
        elif kind == 'zeros':
            data[at : at + size] = bytes(size)
        if not data:
            return b'\0'
    return bytes(data)


def pack(entries: list[tuple[str, bytes]], compress: bool = False) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return target.getvalue()


def mutate_archive(rng: random.Random, content: bytes, canary: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    kind = rng.choice(
        ['pickle'] * 8
        + ['drop', 'cut', 'rename', 'repeat', 'compress', 'bomb', 'lie', 'lie', 'order', 'script', 'other']
    )
    at = rng.randrange(len(entries))
    name, data = entries[at]
    if kind == 'pickle':
        entries = [(n, mutate_pickle(rng, d, canary) if n.endswith('data.pkl') else d) for n, d in entries]
    elif kind == 'drop':
        del entries[at]
    elif kind == 'cut':
        entries[at] = (name, rng.choice([data[: len(data) // 2], data + data, b'', data[:-1], data + b'\0']))
    elif kind == 'rename':
        entries[at] = (rng.choice(['../../x', '/tmp/x', 'x' * 300, 'archive/', 'a/b/data.pkl', f'x/{name}', '²']), data)
    elif kind == 'repeat':
        entries.insert(rng.randrange(len(entries)), (name, rng.choice([data, b'', data[::-1]])))
    elif kind == 'compress':
        return pack(entries, compress=True)
    elif kind == 'bomb':
        entries[at] = (name, bytes(rng.choice([20, 200]) << 20))
        return pack(entries, compress=True)
    elif kind == 'order':
        entries = [
            (n, rng.choice([b'big', b'', b'\xff\xfe', b'x' * 99]) if n.endswith('byteorder') else d) for n, d in entries
        ]
    elif kind == 'script':
        entries.append((f'{name.split("/")[0]}/constants.pkl', b'\x80\x02).'))
    elif kind == 'other':
        entries[at] = (name, mutate_bytes(rng, data))
    else:  # sizes, offsets and methods in the directory
        packed = bytearray(pack(entries))
        marks = [i for i in range(len(packed) - 46) if packed[i : i + 4] in (b'PK\1\2', b'PK\3\4', b'PK\5\6')]
        for _ in range(rng.choice([1, 1, 3])):
            where = rng.choice(marks) + rng.choice([8, 10, 16, 18, 20, 22, 24, 26, 28, 42])
            packed[where : where + 4] = struct.pack('<I', rng.choice(NUMBERS) & 0xFFFFFFFF)
        return bytes(packed)
    return pack(entries)


def mutate_old(rng: random.Random, content: bytes, canary: Path) -> bytes:
    """A file as torch before 1.6 wrote it: pickles one after the other, then the numbers."""
    stream, parts = io.BytesIO(content), []
    for _ in range(5):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        parts.append(content[start : stream.tell()])
    numbers = content[stream.tell() :]
    kind = rng.choice(['content', 'content', 'content', 'any', 'numbers', 'size'])
    at = 3 if kind == 'content' else rng.randrange(5)
    if kind in ('content', 'any'):
        parts[at] = mutate_pickle(rng, parts[at], canary)
    elif kind == 'numbers':
        numbers = mutate_bytes(rng, numbers)
    else:
        numbers = struct.pack('<q', rng.choice(NUMBERS)) + numbers[8:]
    return b''.join(parts) + numbers


def mutate_header(rng: random.Random, content: bytes, canary: Path) -> bytes:
    """Of safetensors: eight bytes of length, a header in JSON, the numbers."""
    (length,) = struct.unpack('<Q', content[:8])
    header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.choice(
        ['length', 'deep', 'twice', 'shape', 'shape', 'offsets', 'offsets', 'dtype', 'name', 'drop', 'value', 'long']
    )
    name = rng.choice([n for n in header if n != '__metadata__'])
    if kind == 'length':
        return struct.pack('<Q', rng.choice(NUMBERS) & (2**64 - 1)) + content[8:]
    if kind == 'deep':
        text = rng.choice(['[' * 100_000, '{"a":' * 50_000, '[' * 300 + ']' * 300]).encode()
        return struct.pack('<Q', len(text)) + text + numbers
    if kind == 'long':
        text = json.dumps(header).encode() + b' ' * (4 << 20)
        return struct.pack('<Q', len(text)) + text + numbers
    if kind == 'twice':
        text = json.dumps(header)
        text = (text[:-1] + ', ' + json.dumps({name: header[rng.choice(list(header))]})[1:]).encode()
        return struct.pack('<Q', len(text)) + text + numbers
    entry = header[name]
    if kind == 'shape':
        entry['shape'] = rng.choice(
            [
                [rng.choice(NUMBERS)],
                [2**32, 2**32],
                [0, 2**63],
                [-1],
                [],
                [1.5],
                ['2'],
                None,
                [1] * 99,
                [[2]],
                entry['shape'] + [1],
                entry['shape'] * 40,
            ]
        )
    elif kind == 'offsets':
        other = header[rng.choice([n for n in header if n != '__metadata__'])]['data_offsets']
        entry['data_offsets'] = rng.choice(
            [
                [0, rng.choice(NUMBERS)],
                [rng.choice(NUMBERS)] * 2,
                list(other),
                [4, 0],
                [0],
                None,
                [0, 0],
                [2**64, 2**64],
            ]
        )
    elif kind == 'dtype':
        entry['dtype'] = rng.choice(['F64', 'I8', 'F8_E4M3', 'F4', 'BOOL', 'x', None, 'C64', 'U64', 'F16'])
    elif kind == 'name':
        header[rng.choice(WORDS)] = header.pop(name)
    elif kind == 'drop':
        del header[name]
    else:
        header[name] = rng.choice([None, [], {}, 1, 'x', {'dtype': 'F32'}])
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + rng.choice([numbers, numbers, numbers[:-4], b'', numbers * 2])


def mutate_tensors(rng: random.Random, content: dict, suffix: str) -> bytes:
    """A file that can be read, of tensors that do not fit."""
    import torch

    tensors = dict(content)
    for _ in range(rng.choice([1, 1, 2, 5, 50])):
        name = rng.choice(list(tensors))
        tensor = tensors[name]
        kind = rng.choice(['drop', 'name', 'name', 'part', 'swap', 'shape', 'dtype', 'view', 'token', 'same'])
        if kind == 'drop' and len(tensors) > 1:
            del tensors[name]
        elif kind == 'name':
            tensors[rng.choice(WORDS)] = tensors.pop(name)
        elif kind == 'part':
            parts = name.split('.')
            parts[rng.randrange(len(parts))] = rng.choice(WORDS)
            tensors['.'.join(parts)] = tensors.pop(name)
        elif kind == 'swap':
            other = rng.choice(list(tensors))
            tensors[name], tensors[other] = tensors[other], tensor
        elif kind == 'shape':
            shape = rng.choice(
                [(), (0,), (0, 0), (1,), (3, 5), (4, 4), (1, 0, 7), (1,) * 8, (64, 64), (9, 9), (2, 9, 9)]
            )
            tensors[name] = torch.rand(shape)
        elif kind == 'dtype':
            dtypes = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64, torch.complex64]
            tensors[name] = tensor.to(rng.choice(dtypes))
        elif kind == 'view':
            tensors[name] = rng.choice(
                [tensor.T if tensor.ndim == 2 else tensor, tensor.flatten(), tensor[None], tensor * float('nan')]
            )
        elif kind == 'token':
            side = rng.choice([0, 1, 2, 3, 5, 7])
            tensors = {
                k: torch.rand(side**2, side**2) if v.ndim == 2 and v.shape[0] == v.shape[1] else v
                for k, v in tensors.items()
            }
        else:
            tensors[rng.choice(list(tensors))] = tensor
    if suffix == '.safetensors':
        from safetensors.torch import save

        kept = {k: v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items() if k.isprintable()}
        return save({k: v for k, v in kept.items() if not v.is_complex()} or {'a': torch.ones(1)})
    if suffix == '.pdparams':
        return pickle.dumps({k: v.numpy() for k, v in tensors.items()}, rng.choice([2, 4]))
    wrapped = rng.choice([tensors, {'state_dict': tensors}, {'model': {f'module.{k}': v for k, v in tensors.items()}}])
    return whole(wrapped, old=rng.random() < 0.3)


# Checkpoints ----------------------------------------------------------------------------------------------------------


def whole(content: dict, old: bool = False) -> bytes:
    import torch

    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=not old)
    return target.getvalue()


def seeds() -> dict[str, bytes]:
    """Small files of every format and dialect that are read as they are."""
    import numpy as np
    import safetensors.torch
    from families import FAMILIES, TINY, tiny
    from goldens import FOLDER
    from mmengine.logging import MessageHub

    from mlp_backbones import RepMLP, ResMLP

    states = {cls.__name__: tiny(cls, final_norm=True).state_dict() for cls in FAMILIES}
    files = {f'{name}.pth': whole(state) for name, state in states.items()}
    resmlp = states['ResMLP']
    files['old.pth'] = whole(resmlp, old=True)
    names = {'stem.': 'patch_embed.', '.linear_tokens.': '.attn.', '.mlp_channels.': '.mlp.', '.ls': '.gamma_'}
    deit = {}
    for key, value in resmlp.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        deit[f'module.{key}'] = value
    files['deit.pth'] = whole({'model': deit, 'epoch': 3})
    host = {f'backbone.{k}': v for k, v in states['ConvMLP'].items()}
    hub = MessageHub('hostile')
    hub.update_scalar('train/loss', 0.5)
    hub.update_scalar('train/lr', np.float64(0.1))
    training = dict(meta=dict(epoch=1), state_dict=host, message_hub=hub.state_dict(), optimizer=dict(state={}))
    files['training.pth'], files['oldtraining.pth'] = whole(training), whole(training, old=True)
    deploy = RepMLP(**TINY[RepMLP]).eval()
    deploy.switch_to_deploy()
    files['deploy.pth'] = whole({'state_dict': deploy.state_dict()})
    for cls in FAMILIES:
        files[f'{cls.__name__}.pdparams'] = (FOLDER.parent / 'paddle' / f'{cls.__name__.lower()}.pdparams').read_bytes()
    arrays = {k: v.numpy() for k, v in tiny(ResMLP).state_dict().items()}
    for protocol in (2, 5):
        files[f'protocol{protocol}.pdparams'] = pickle.dumps(arrays, protocol)
    for name in ('ConvMLP', 'ResMLP'):
        files[f'{name}.safetensors'] = safetensors.torch.save(
            {k: v.contiguous() for k, v in states[name].items()}, {'format': 'pt'}
        )
    return files


def malicious(rng: random.Random, canary: Path) -> tuple[str, str, bytes]:
    """What it is, the suffix, and a file around one attack, as a value, as a key or all there is."""
    name, attack = rng.choice(list(attacks(canary).items()))
    root = rng.choice([
        lambda: b'}' + text('blocks.0.linear_tokens.weight') + attack + b's',
        lambda: b'}' + text('blocks.0.linear_tokens.weight') + tensor() + b's' + text('blocks.0.linear_tokens.bias') + attack + b's',
        lambda: b'}' + text('state_dict') + b'}' + text('stem.proj.weight') + attack + b's' + text('a') + array() + b's' + b's',
        lambda: b'}' + attack + tensor() + b's',
        lambda: attack,
    ])()  # fmt: skip
    program = rng.choice([b'\x80\x02', b'\x80\x04', b'']) + root + b'.'
    form = rng.choice(['zip', 'zip', 'old', 'old', '.pdparams', '.pdparams', 'bare'])
    if form == 'zip':
        entries = [('a/data.pkl', program), ('a/byteorder', b'little'), ('a/data/0', bytes(16)), ('a/version', b'3\n')]
        return name, '.pth', pack(entries)
    if form == 'old':
        heads = [
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            pickle.dumps(1001, 2),
            pickle.dumps({'little_endian': True}, 2),
        ]
        return name, '.pth', b''.join(heads) + program + pickle.dumps(['0'], 2) + struct.pack('<q', 4) + bytes(16)
    return name, '.pth' if form == 'bare' else form, program


class Checkpoints:
    """Mutated and malicious files, and every door of the package that they are brought to."""

    def __init__(self, folder: Path) -> None:
        import torch
        from families import FAMILIES, tiny
        from mmengine.model import BaseModel

        from mlp_backbones.checkpoints import read_checkpoint, state_dict_of

        class Host(BaseModel):
            def __init__(self, backbone):
                super().__init__()
                self.backbone, self.head = backbone, torch.nn.Module()
                self.head.fc = torch.nn.Linear(4, 3)

            def forward(self):
                """Of no use here."""

        self.folder, self.canary, self.files = folder, folder / 'canary', seeds()
        self.models = {cls.__name__: lambda cls=cls: tiny(cls, final_norm=True) for cls in FAMILIES}
        self.models['resized'] = lambda: tiny(FAMILIES[1], token_mixing='resize', img_size=(96, 64))
        self.models['deploy'] = lambda: tiny(FAMILIES[3], deploy=True)
        self.host = Host
        self.tensors = {}
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
            self.tensors[name] = state_dict_of(read_checkpoint(folder / name), name)
            (folder / name).unlink()
        self.before = self.attributes()

    @staticmethod
    def attributes() -> dict:
        """What a file could have written into the process."""
        import torch

        from mlp_backbones.checkpoints import files

        owners = [torch, torch.Tensor, torch._utils, torch._utils._rebuild_tensor_v2, torch.Size, collections, files]
        owners += [v for v in vars(files).values() if getattr(v, '__module__', '') == files.__name__]
        return {str(owner): sorted(vars(owner)) for owner in owners if hasattr(owner, '__dict__')}

    def make(self, case: int) -> tuple[str, Path]:
        """What the case is, and its file."""
        rng = random.Random(case)
        dice = rng.random()
        if dice < 0.25:
            suffix = rng.choice(['.pth', '.pth', '.pdparams', '.safetensors'])
            name = rng.choice(list(self.tensors))
            what, content = f'{name} mutate_tensors', mutate_tensors(rng, self.tensors[name], suffix)
        elif dice < 0.45:
            what, suffix, content = malicious(rng, self.canary)
        else:
            name, content = rng.choice(list(self.files.items()))
            suffix = Path(name).suffix
            mutations = [mutate_bytes]
            if suffix == '.safetensors':
                mutations.append(mutate_header)
            elif suffix == '.pdparams':
                mutations.append(mutate_pickle)
            else:
                mutations += [mutate_old if name.startswith('old') else mutate_archive] * 2
            mutation = rng.choice(mutations)
            third = rng.choice(list(self.files.values())) if mutation is mutate_bytes else self.canary
            what, content = f'{name} {mutation.__name__}', mutation(rng, content, third)
        path = self.folder / f'x{suffix}'
        path.write_bytes(content)
        return what, path

    def attempt(self, case: int) -> dict:
        what, path = self.make(case)
        size = path.stat().st_size
        Path('/proc/self/clear_refs').write_text('5')  # the peak is counted from here
        start, began = status('VmRSS'), time.monotonic()
        outcome = self.doors(case, path)
        report = dict(what=what, size=size, seconds=time.monotonic() - began, outcome=outcome)
        report['memory'] = status('VmHWM') - start
        if report['memory'] > MEMORY + 16 * size:
            report['failure'] = f'{report["memory"] >> 20} MiB of memory for a file of {size} bytes'
        if self.canary.exists():
            self.canary.unlink() if self.canary.is_file() else self.canary.rmdir()
            report['failure'] = 'what is in the file was run'
        if self.attributes() != self.before:
            report['failure'], self.before = 'the file changed attributes of the process', self.attributes()
        if left := sorted(p.name for p in self.folder.iterdir() if p != path):
            report['failure'] = f'left behind: {left}'
        path.unlink()
        if outcome.startswith('foreign'):
            report['failure'] = outcome
        return report

    def doors(self, case: int, path: Path) -> str:
        from mlp_backbones.checkpoints import convert, read_checkpoint, state_dict_of, write_checkpoint

        outcome = caught(lambda: state_dict_of(read_checkpoint(path), path))
        if not isinstance(outcome, dict):
            return outcome
        families = sorted(self.models)
        outcomes = []
        converted = caught(lambda: convert(outcome, backbone_only=case % 2 == 0))
        if isinstance(converted, str):
            outcomes.append(converted)
        else:
            families.insert(case % 2, converted.family)
            target = path.with_name('y.pth' if case % 3 else 'y.safetensors')
            outcomes.append(caught(lambda: write_checkpoint(converted.tensors, target, dict(a='b')) and 'written'))
            target.unlink(missing_ok=True)
        strict = case % 5 != 0
        doors = [
            lambda model: model.load_state_dict(dict(outcome), strict) and None,
            lambda model: self.host(model).load_state_dict(dict(outcome), strict) and None,
            lambda model: self.pretrained(model, path),
        ]
        for i, family in enumerate(families[:3]):
            model = self.models[family]()
            door = doors[(case + i) % 3]
            outcomes.append(caught(lambda model=model, door=door: door(model) or 'loaded'))
        return next((o for o in outcomes if o.startswith('foreign')), f'read; {outcomes[-1]}')

    @staticmethod
    def pretrained(model, path: Path) -> None:
        model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
        model.init_weights()


def caught(function):
    """What a function gives, or which error it ended with: 'refused', or 'foreign' for one that is not ours."""
    from mlp_backbones.checkpoints import CheckpointError

    try:
        return function()
    except CheckpointError as error:
        message = str(error)
        if len(message) > 10_000:
            return f'foreign: a message of {len(message)} characters'
        try:
            message.encode()
        except UnicodeEncodeError:
            return 'foreign: a message that cannot be printed'
        return 'refused'
    except BaseException as error:
        if isinstance(error, RuntimeError) and str(error).startswith('Error(s) in loading state_dict'):
            return 'refused'  # by torch, which says what does not fit
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if 'mlp_backbones' in f.filename] or frames
        where = f'{Path(ours[-1].filename).name}:{ours[-1].lineno}'
        return f'foreign: {type(error).__name__}: {str(error)[:200]} (at {where})'


# Arguments ------------------------------------------------------------------------------------------------------------


def values() -> list:
    """Of every kind that has no place in an argument, and some that have."""
    import numpy as np
    import torch

    endless: list = []
    endless.append(endless)
    return [
        *(None, True, False, *NUMBERS, 3, 10**30, 0.5, -0.5, 1.5, 1e300, float('nan'), float('inf'), -float('inf'), 1j),
        *('', 'small', 'b224', '3', 'False', 'x' * 100_000, '²', '\ud800', b'3', bytearray(3), Ellipsis, object(), object, len),
        *((), [], {}, set(), [1], (1, 2, 3), (0, 1, 2, 3), [None], [[3]], ['3'], {1: 2}, {'type': 'BN'}, {3}, range(3), range(10**9)),
        *(endless, {'a': endless}, [True], [1.5], (2, 2**40), [-1], [0] * 1000, iter([3]), map(int, '3')),
        *(np.int64(3), np.float32(0.5), np.array(3), np.array([1, 2]), np.array([]), np.bool_(True), np.nan),
        *(torch.tensor(3), torch.ones(2), torch.empty(0), torch.float32, torch.device('cpu'), torch.Size([3])),
    ]  # fmt: skip


SPECIAL = {
    'arch': ['ti16', 'S', 'big_24', 'T224', '24', 'L', 'no', 'small '],
    'img_size': [224, (224, 320), 223, (224,), (32, 32, 32), 32, (32, 10**9), 2**40, 10**6, (64.0, 64), 16, 8],
    'out_indices': [-1, (0, 0), (0, -4), (-5,), (4,), 99, -99, (1, 0), [3], (0, 1.0), (True,), (10**30,), 'abc', '0'],
    'frozen_stages': [-2, 4, 3, 0, 1.0, '1', 99],
    'drop_path_rate': [1, 0.999, -1e-9, 0.3, '0.1', [0.1]],
    'token_mixing': ['window', 'resize', 'fixed', 'Window', ('window',), ['window'], {'window': 1}],
    'norm_cfg': [
        dict(), dict(type='GN'), dict(type='GN', num_groups=0), dict(type='GN', num_groups=3), dict(type='GN', num_groups=-4),
        dict(type='GN', num_groups='4'), dict(type='GN', num_groups=4), dict(type='BN', eps='x'), dict(type='BN', eps=-1),
        dict(type='BN', momentum=None), dict(type='BN', bogus=1), dict(type='BN', num_features=3), dict(type='BN', requires_grad='no'),
        dict(type='BN', requires_grad=None), dict(type='LN'), dict(type=None), dict(type=[]), dict(type={}), dict(type='SyncBN'),
        dict(type='BN', track_running_stats=False), dict(type='BN', affine=False), dict(type='BN', device='hostile'), {1: 2}, {'type': 'BN', 1: 2},
        dict(type='BN', dtype='float'), dict(type='SyncBN', process_group='x'), dict(type='BN', affine='x'), [('type', 'BN')],
    ],
    'init_cfg': [
        dict(), dict(type='Pretrained'), dict(type='Pretrained', checkpoint=None), dict(type='Pretrained', checkpoint='no.pth'),
        dict(type='Pretrained', checkpoint=3), dict(type='Pretrained', checkpoint='no.pth', bogus=1), dict(type='Hostile'), dict(type=3),
        dict(type='Kaiming', layer='Conv2d'), dict(type='Kaiming'), dict(type='Kaiming', layer=3), [dict()], [3], 'Pretrained', 3,
        dict(type='Pretrained', checkpoint='no.pth', prefix=3), dict(type='Constant', val='x', layer='Conv2d'), [None], [[dict(type='Kaiming')]],
        dict(type='Kaiming', layer='Conv2d', bogus=3), dict(type='Pretrained', checkpoint='x' * 10_000), dict(type='Pretrained', checkpoint='a\0b'),
        dict(type='Constant', val=1, layer='Linear', override=dict(name='no')), dict(type='Pretrained', checkpoint=''),
        dict(type='Pretrained', checkpoint='http://127.0.0.1:9/x.pth'), dict(type='Pretrained', checkpoint='hostile://x'),
    ],
    'out_strides': [(4,), (4, 8), (3,), (8, 4), (0,), (-4,), (4.0, 8), (2**40,), (4, 4), tuple(2**i for i in range(2, 40)), (1,), (1, 2)],
    'in_stride': [0, -16, 16.0, 12, 1, 2**40],
}  # fmt: skip


SPECIAL.update({name: 10 * [True, False] for name in ('norm_eval', 'with_cp', 'final_norm', 'deploy', 'cross_window')})


class Arguments:
    """Constructor arguments, and pretrained weights that ``init_cfg`` asks for."""

    def __init__(self, folder: Path) -> None:
        from families import TINY

        from mlp_backbones import SimpleFeaturePyramid

        self.bases = {**TINY, SimpleFeaturePyramid: dict(in_channels=16, out_channels=4)}
        self.before = sorted(p.name for p in Path('.').iterdir())

    def make(self, case: int) -> tuple[type, dict, list[str]]:
        """A class, its arguments, and the names of those that were changed."""
        import inspect

        rng = random.Random(case)
        cls = rng.choice(list(self.bases))
        kwargs = {k: dict(v) if isinstance(v, dict) else v for k, v in self.bases[cls].items()}
        names = [*inspect.signature(cls).parameters, 'arch', 'out_indices', 'norm_cfg', 'init_cfg']
        names = [name for name in names if name in inspect.signature(cls).parameters]
        changed = []
        for _ in range(rng.choice([1, 1, 1, 1, 2, 3])):
            name = rng.choice(names)
            if name == 'arch' and rng.random() < 0.8 and isinstance(kwargs['arch'], dict):
                arch = kwargs['arch']
                key = rng.choice(list(arch))
                kind = rng.choice(['drop', 'more', 'value', 'value', 'value', 'item', 'item', 'item', 'length'])
                if kind == 'drop':
                    del arch[key]
                elif kind == 'more':
                    arch[rng.choice(['hostile', 'Depth', '', '²', 3, None, ('a',)])] = rng.choice(values())
                elif kind == 'value':
                    arch[key] = rng.choice([*values(), 1, 2, 5, 63, 100, 1e-9])
                elif isinstance(arch[key], (tuple, list)) and arch[key]:
                    items = list(arch[key])
                    if kind == 'item':
                        items[rng.randrange(len(items))] = rng.choice([*values(), 1, 2, 5, 63, 100])
                    else:
                        items = rng.choice([items[:-1], items + items[:1], [], items * 50])
                    arch[key] = rng.choice([tuple, list])(items)
            elif rng.random() < 0.02:
                kwargs['hostile'] = name = 'hostile'
            else:
                kwargs[name] = rng.choice([*values(), *3 * SPECIAL.get(name, [])])
            changed.append(name)
        return cls, kwargs, changed

    def attempt(self, case: int) -> dict:
        cls, kwargs, changed = self.make(case)
        said = {k: f'{v!r:.80}' for k, v in kwargs.items() if k in changed}
        began = time.monotonic()
        report = dict(what=f'{cls.__name__} {said}', outcome=self.outcome(cls, kwargs, changed))
        report['seconds'] = time.monotonic() - began
        if report['outcome'].startswith('foreign'):
            report['failure'] = report['outcome']
        return report

    @staticmethod
    def outcome(cls: type, kwargs: dict, changed: list[str]) -> str:
        import torch

        from mlp_backbones.checkpoints import CheckpointError

        try:
            with torch.device('meta'):
                cls(**kwargs)
        except (TypeError, ValueError) as error:
            return judged(error, changed)
        except BaseException as error:
            return f'foreign: {located(error)}'
        cfgs = kwargs.get('init_cfg')
        cfgs = cfgs if isinstance(cfgs, list) else [cfgs]
        pretrained = any(cfg and cfg.get('type') == 'Pretrained' for cfg in cfgs)
        if not pretrained or set(changed) != {'init_cfg'} or 'arch' not in kwargs:  # a neck's are read by mmengine
            return 'built'
        try:
            cls(**kwargs).init_weights()
        except (CheckpointError, FileNotFoundError):
            return 'built, its weights refused'
        except (TypeError, ValueError) as error:
            return judged(error, changed)
        except BaseException as error:
            return f'foreign: {located(error)}'
        return 'built, its weights initialised'


class Options:
    """What ``--cfg-options`` may set, for runs of every task."""

    CONFIGS = {
        'detection/retinanet_convmlp_s_fpn_1x_coco.py': 'detection',
        'detection/maskrcnn_resmlp_p8_sfp_shapes.py': 'detection',
        'segmentation/fpn_convmlp_s_512x512_40k_ade20k.py': 'segmentation',
        'classification/convmlp_s_imagenet.py': 'classification',
    }

    def __init__(self, folder: Path) -> None:
        from mlp_backbones.datasets import make_shapes
        from mlp_backbones.launch import load_config

        os.chdir(folder)
        self.keys = {}
        for config, task in self.CONFIGS.items():
            if not Path(task).exists():
                make_shapes(task, task, num_train=6, num_val=5, verbose=False)
            self.keys[config] = sorted(paths_of(load_config(self.path(config))._cfg_dict.to_dict()))

    @staticmethod
    def path(config: str) -> str:
        return str(Path(__file__).parents[1] / 'configs' / config)

    def make(self, case: int) -> tuple[str, dict, list[str]]:
        """A config, its options, and which of them are hostile."""
        rng = random.Random(case)
        config, task = rng.choice(list(self.CONFIGS.items()))
        options = {'model.backbone.init_cfg': None, 'data_root': task}
        if 'shapes' in config:
            options['shapes.root'] = task
        changed = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            # Those that are looked at before a run get more than their share.
            near = [
                k for k in self.keys[config] if k.startswith(('model.backbone', 'data_root', 'load_from', 'work_dir'))
            ]
            key = rng.choice(rng.choice([self.keys[config], self.keys[config], near]))
            kind = rng.choice(['as is'] * 4 + ['top', 'deeper', 'typo', 'odd'])
            if kind == 'top':
                key = key.split('.')[0]
            elif kind == 'deeper':
                key = f'{key}.{rng.choice(["x", "0", "99", "-1", "type"])}'
            elif kind == 'typo':
                key = key[:-1] or 'x'
            elif kind == 'odd':
                key = rng.choice(['', '.', 'model.', '.model', 'model..backbone', '²', 'model.backbone.arch.0', 'shapes', 'shapes.task',
                    'launcher', 'default_scope', 'model', 'train_dataloader', 'val_dataloader.dataset', 'load_from', 'work_dir', 'resume',
                    'model.backbone', 'model.backbone.type', 'model.backbone.init_cfg', 'optim_wrapper', 'data_root', '_delete_', 'type'])  # fmt: skip
            options[key] = rng.choice([
                None, True, False, 0, 1, -1, 3, 10**12, 0.5, float('nan'), '', 'hostile', 'ConvMLP', 'mlp_backbones.ConvMLP',
                'mlp_backbones.Hostile', 'no/such/file.pth', 'x' * 5000, 'a\0b', '²', '\ud800', 'http://127.0.0.1:9/x.pth', 'hostile://x', [],
                [1, 2], (3,), ['x'], [None], [[1]], {}, dict(type='hostile'), dict(type='Pretrained'), dict(type='BN'), dict(root=3),
                dict(root=task, task='hostile'), [dict(type='Pretrained', checkpoint=3)], '/dev/null', '/proc/self/mem', '.', 1j, 'None',
            ])  # fmt: skip
            changed.append(key)
        return config, options, changed

    def attempt(self, case: int) -> dict:
        config, options, changed = self.make(case)
        began = time.monotonic()
        outcome = self.outcome(self.path(config), options, train=case % 3 > 0)
        said = {k: f'{options[k]!r:.80}' for k in changed}
        report = dict(what=f'{config} {said}', outcome=outcome, seconds=time.monotonic() - began)
        if outcome.startswith('foreign'):
            report['failure'] = outcome
        return report

    @staticmethod
    def outcome(config: str, options: dict, train: bool) -> str:
        from mlp_backbones.environment import MissingDependency
        from mlp_backbones.launch import UserError, prepare

        args = argparse.Namespace(config=config, work_dir='work', cfg_options=options, launcher='none', local_rank=0)
        try:
            prepare(args, train=train)
        except (UserError, MissingDependency) as error:
            return 'refused' if len(str(error)) < 20_000 else f'foreign: a message of {len(str(error))} characters'
        except (TypeError, ValueError, RuntimeError, OSError) as error:  # as run_tool
            ours = 'mlp_backbones' in traceback.extract_tb(error.__traceback__)[-1].filename
            return 'refused' if ours else f'foreign: {located(error)}'
        except BaseException as error:
            return f'foreign: {located(error)}'
        return 'ready'


def paths_of(value, path: str = '') -> list[str]:
    """The keys of a config, with dots."""
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    found = [path] if path else []
    for key, child in children:
        found += paths_of(child, f'{path}.{key}'.lstrip('.'))
    return found


def judged(error: Exception, changed: list[str]) -> str:
    """A refusal is the package's own when it names what was wrong and is short."""
    message = str(error)
    if 'mlp_backbones' not in located(error) and 'unexpected keyword' not in message:
        return f'foreign: {located(error)}'
    named = [*changed, 'img_size'] if 'arch' in changed else changed  # which RepMLP's arch has too
    if not any(name in message for name in named):
        return f'foreign: names none of {changed}: {located(error)}'
    if len(message) > 2_000:
        return f'foreign: a message of {len(message)} characters'
    return 'refused'


def located(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if 'mlp_backbones' in f.filename]
    through = f', through {Path(ours[-1].filename).name}:{ours[-1].lineno}' if ours and ours[-1] != frames[-1] else ''
    where = '/'.join(Path(frames[-1].filename).parts[-3:])
    return f'{type(error).__name__}: {str(error)[:200]!r} at {where}:{frames[-1].lineno}{through}'


# Workers --------------------------------------------------------------------------------------------------------------


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f'{key}:'))


KINDS = {'checkpoints': Checkpoints, 'arguments': Arguments, 'options': Options}


def work(kind: str, folder: str) -> None:
    """Try the cases whose numbers come from standard input; a report on each goes to standard output."""
    import logging
    import warnings

    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    out, sys.stdout = sys.stdout, sys.stderr
    tries = KINDS[kind](Path(folder))
    limit = status('VmSize') + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print('ready', file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(tries.attempt(int(line))), file=out, flush=True)


class Worker:
    """A process that tries cases, and is started anew when it dies or hangs."""

    def __init__(self, kind: str) -> None:
        self.kind, self.process, self.folder = kind, None, None

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix='hostile-')
        self.process = subprocess.Popen(
            [sys.executable, __file__, kind_of_work(self.kind), '--work', self.folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline() == 'ready\n', 'the worker does not start'

    def attempt(self, case: int) -> dict:
        if self.process is None:
            self.start()
        self.process.stdin.write(f'{case}\n')
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return dict(what='?', failure=f'more than {SECONDS} seconds')
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.stop()
            return dict(what='?', failure=f'the process died with status {code}')
        return json.loads(line)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.folder.cleanup()
        self.process = None


def kind_of_work(kind: str) -> str:
    return kind


def run(kind: str, cases: range, say: bool = True) -> tuple[collections.Counter, dict[int, str], dict]:
    """Try cases.

    Returns:
        tuple: How often which outcome; case -> what it is and how it failed; the worst seconds and bytes.
    """
    outcomes, failures, worst = collections.Counter(), {}, dict(seconds=0.0, memory=0)
    worker = Worker(kind)
    try:
        for done, case in enumerate(cases, 1):
            report = worker.attempt(case)
            if 'failure' in report:
                failures[case] = f'{report["what"]}: {report["failure"]}'
                if say:
                    print(f'\ncase {case}: {failures[case]}', flush=True)
            if say and report.get('seconds', 0) > 1:
                print(f'\ncase {case}: {report["what"]}: {report["seconds"]:.1f} s', flush=True)
            outcomes['failure' if 'failure' in report else report['outcome']] += 1
            for key in worst:
                worst[key] = max(worst[key], report.get(key, 0))
            if say and done % 200 == 0:
                print(f'\r{done} of {len(cases)}, {len(failures)} failures', end='', flush=True)
    finally:
        worker.stop()
    return outcomes, failures, worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=KINDS)
    parser.add_argument('--first', type=int, default=0, help='the number of the first case')
    parser.add_argument('--show', type=int, metavar='CASE', help='try one case in this process, and keep its file')
    parser.add_argument('--work', metavar='FOLDER', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.kind, args.work)
    elif args.show is not None:
        folder = Path('hostile')
        folder.mkdir(exist_ok=True)
        print(KINDS[args.kind](folder).attempt(args.show))
        print(KINDS[args.kind](folder).make(args.show))
    else:
        began, count = time.monotonic(), int(os.environ.get('FUZZ_CASES', 10_000))
        outcomes, failures, worst = run(args.kind, range(args.first, args.first + count))
        print(f'\r{count} cases in {time.monotonic() - began:.0f} s, {len(failures)} failures' + ' ' * 20)
        print(f'slowest {worst["seconds"]:.1f} s, most memory {worst["memory"] / 2**20:.0f} MiB beyond the start')
        for outcome, number_of in outcomes.most_common():
            print(f'{number_of:7d}  {outcome}')
        return bool(failures)
    return 0


if __name__ == '__main__':
    sys.exit(main())
