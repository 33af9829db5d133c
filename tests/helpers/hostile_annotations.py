"""Hostile annotation files, each from its number alone: mutations of good ones."""

import copy
import json
import random

VALUES = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e-320, 1e308, -1e308),
    *(float('nan'), float('inf'), float('-inf'), '', 'x', '1', 'NaN', '../../x.jpg', 'a\0b', '\ud800', 'ü' * 300),
    *([], {}, [[]], [{}], [0], [0, 0, 0, 0], [-5, -5, -1, -1], [1e9] * 4, ['1', '2', '3', '4'], [None] * 4),
    *([5, 5, float('nan'), 5], [5, 5, float('inf'), 5], [5, 5, 0, 0], [5, 5, 3], [[5, 5, 9, 9]], [500, 500, 9, 9]),
]


def _places(value, path=()):
    """(container, key) of everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items):
        yield value, key
        yield from _places(child)


def _mutate(rng: random.Random, data) -> object:
    """One change of the structure."""
    places = list(_places(data))
    if not places:
        return rng.choice(VALUES)
    # A field of an entry is as likely as a coordinate of the many.
    container, key = rng.choice([p for p in places if isinstance(p[0], dict)] if rng.random() < 0.6 else places)
    kind = rng.randrange(10)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif kind == 2:
        container[key] = [container[key]]
    elif kind == 3 and isinstance(container[key], (int, float)):
        container[key] = rng.choice([-container[key], container[key] * 10**6, str(container[key])])
    elif kind > 6 and isinstance(container[key], (int, float)):
        container[key] = rng.choice([container[key] + 1, container[key] / 3, container[key] * 2, container[key] + 1e-9])
    elif kind == 4:
        other, name = rng.choice(places)
        container[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else other[:1])
    elif kind == 5 and isinstance(container, dict):
        container['x' + str(key)] = container.pop(key)
    else:
        container[key] = copy.deepcopy(rng.choice(VALUES))
    return data


def hostile_coco(seed: int, good: dict) -> bytes:
    """A mutated COCO file: in three of four by structure, else as bytes."""
    rng = random.Random(seed)
    data: object = copy.deepcopy(good)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = _mutate(rng, data)
    content = bytearray(json.dumps(data).encode('utf-8', 'surrogatepass'))
    if seed % 4 == 3:  # bytes
        hostile_bytes(rng, content)
    elif seed % 101 == 0:
        content = bytearray(b'[' * 100_000)
    return bytes(content)


def hostile_bytes(rng: random.Random, content: bytearray) -> None:
    """Change bytes in place: cut, flip, insert, repeat, blank."""
    for _ in range(rng.choice([1, 2, 8])):
        at = rng.randrange(len(content) + 1)
        size = rng.choice([1, 4, 64, 1024])
        kind = rng.randrange(5)
        if kind == 0:
            del content[at:]
        elif kind == 1 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            content[at:at] = rng.choice([b'\0', b'\xff\xfe', b'{', b']', b'"', b'NaN', b'1e999', rng.randbytes(4)])
        elif kind == 3:
            content[at : at + size] = b'\0' * size
        else:
            del content[at : at + size]
