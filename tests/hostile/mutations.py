"""Checkpoint files, changed: in their bytes, their archives, their pickles, their headers, their tensors."""

import io
import json
import pickle
import pickletools
import random
import struct
import zipfile
from pathlib import Path

from .attacks import array, attacks, name_of, number, tensor, text

WORDS = (
    '', '²', '٣', '\ud800', '\x1b[31m', 'x' * 100_000, 'backbone', 'backbone.', 'module.', 'head.weight',
    'stages.9.9.9',
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
                    ('torch', 'Size'), ('torch', 'device'), ('numpy', 'dtype'), ('torch',
                    'ComplexFloatStorage')]))  # fmt: skip
            else:
                ops[at] = rng.choice(
                    [b'}', b']', b')', b'N', b'\x88', tensor(), array(), rng.choice(list(attacks(canary).values()))]
                )
    return b''.join(ops)


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


def whole(content: dict, old: bool = False) -> bytes:
    import torch

    target = io.BytesIO()
    torch.save(content, target, _use_new_zipfile_serialization=not old)
    return target.getvalue()
