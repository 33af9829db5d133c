"""Checks of constructor arguments: what is wrong is named before anything is built, with what is possible.

Numbers and flags of numpy are as good as Python's. ``owner`` is whose argument it is, for messages.
"""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np

from .errors import InvalidType, InvalidValue

MOST_CHANNELS = 1 << 16
MOST_BLOCKS = 1 << 10
MOST_PIXELS = 1 << 12  # of a side of a token grid or a tile, not of an image


def short_repr(value: Any) -> str:
    """Return a value as messages show it: short."""
    shown = repr(value)
    return shown if len(shown) <= 300 else f'{shown[:300]}...'


def is_int(value: Any) -> TypeGuard[int]:
    """Return whether a value is an integer of Python or numpy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a value is a real number of Python or numpy; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_int(owner: str, name: str, value: Any, most: int = MOST_CHANNELS) -> int:
    """Return a positive int up to ``most`` as one of Python's own, or raise ValueError."""
    if not is_int(value) or value < 1:
        raise InvalidValue(f'{owner}: {name} must be a positive int, got {short_repr(value)}')
    if value > most:
        raise InvalidValue(f'{owner}: {name} must be a positive int up to {most}, got {short_repr(value)}')
    return int(value)


def check_number(owner: str, name: str, value: Any, most: float = 1024) -> float:
    """Return a number from 0 to ``most`` as one of Python's own, or raise TypeError or, out of range, ValueError."""
    if not is_number(value):
        raise InvalidType(f'{owner}: {name} must be a number, got {short_repr(value)}')
    if not 0 <= value <= most:  # nor NaN
        raise InvalidValue(f'{owner}: {name} must be from 0 to {most}, got {short_repr(value)}')
    return float(value)


def check_flags(owner: str, **flags: Any) -> None:
    """Raise TypeError where one is neither True nor False: the string 'False' would count as true."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidType(f'{owner}: {name} must be True or False, got {short_repr(value)}')


def check_like(owner: str, name: str, value: Any, example: int | float | tuple) -> Any:
    """Return a value of the same kind as ``example``: a positive int, a number, or a tuple of as many of them.

    Raises:
        TypeError, ValueError: It is of another kind.
    """
    if isinstance(example, tuple):
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise InvalidType(f'{owner}: {name} must be a sequence of {len(example)}, got {short_repr(value)}')
        if len(value) != len(example):
            raise InvalidValue(f'{owner}: {name} has {len(example)} entries, got {short_repr(value)}')
        return tuple(check_like(owner, f'{name}[{i}]', v, e) for i, (v, e) in enumerate(zip(value, example)))
    if isinstance(example, float):
        return check_number(owner, name, value)
    return check_int(owner, name, value, MOST_BLOCKS if 'depth' in name or 'blocks' in name else MOST_CHANNELS)
