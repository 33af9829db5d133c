"""Pickles written by hand, that would do harm where they are run."""

import struct
from pathlib import Path


class Touch:
    """A file is made where this is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


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
            ('torch._tensor', '_rebuild_from_type_v2', [name_of('os', 'system'), name_of('torch', 'Tensor'),
            several(text(shell)), b'}']),
            ('numpy', 'load', [text(path)]),
            ('numpy', 'memmap', [text(path), text('u1'), text('w+'), number(0), number(4)]),
            ('numpy', 'save', [text(path), number(1)]),
            ('numpy', 'ndarray', [several(number(2**40))]),
            ('numpy', 'zeros', [number(2**40)]),
            ('numpy.testing._private.utils', 'runstring', [text(code), b'}']),
            ('numpy.core.multiarray', '_reconstruct', [name_of('numpy', 'ndarray'), several(number(2**40)),
            text('f8')]),
            ('numpy.core.multiarray', 'scalar', [call('numpy', 'dtype', text('O8'), number(0), number(1)),
            b'C\x08' + b'A' * 8]),
            ('numpy.core.numeric', '_frombuffer', [b'C\x04AAAA', call('numpy', 'dtype', text('f4')),
            several(number(2**62), number(4)), text('C')]),
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
                  ('torch', 'float32'), ('torch', 'Size'), ('mmengine.logging.history_buffer',
                  'HistoryBuffer')):  # fmt: skip
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
        dict(count=2**40), dict(count=-1), dict(count=2**63), dict(count=0), dict(key='../0'), dict(key='x'),
        dict(device='meta'),
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
        ('f4', (2**40,), 16), ('f4', (2**62, 4), 16), ('f4', (-1,), 16), ('f4', (2, -1), 16), ('f4', (), 4), ('f4',
        (0, 2**62), 0),
        ('f16', (2,), 32), ('c32', (1,), 32), ('c8', (2,), 16), ('u8', (2,), 16), ('u4', (4,), 16), ('f2', (8,), 16),
        ('b1', (16,), 16),
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
