"""Checks of constructor arguments: what is wrong is named before anything is built, with what is possible."""

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Union

from mmengine.registry import WEIGHT_INITIALIZERS

MOST_CHANNELS = 1 << 16
MOST_BLOCKS = 1 << 10
MOST_PIXELS = 1 << 12  # of a side of a token grid or a tile, not of an image


def said(value: Any) -> str:
    """How a message shows a value: short."""
    text = repr(value)
    return text if len(text) <= 300 else f'{text[:300]}...'


def check_int(owner: str, name: str, value: Any, most: int = MOST_CHANNELS) -> int:
    """A positive int up to ``most``, as it is.

    Args:
        owner (str): Whose argument it is, for messages.
        name (str): The argument.
        value (Any): What was given.
        most (int): The largest that is possible.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f'{owner}: {name} must be a positive int, got {said(value)}')
    if value > most:
        raise ValueError(f'{owner}: {name} must be a positive int up to {most}, got {said(value)}')
    return value


def check_number(owner: str, name: str, value: Any, most: float = 1024) -> float:
    """A number from 0 to ``most``, as it is.

    Raises:
        TypeError: No number.
        ValueError: Out of range, or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{owner}: {name} must be a number, got {said(value)}')
    if not 0 <= value <= most:
        raise ValueError(f'{owner}: {name} must be from 0 to {most}, got {said(value)}')
    return value


def check_flags(owner: str, **flags: Any) -> None:
    """Refuse what is neither True nor False: the text 'False' would count as true.

    Raises:
        TypeError: One is neither.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f'{owner}: {name} must be True or False, got {said(value)}')


def check_like(owner: str, name: str, value: Any, example: Union[int, float, tuple]) -> Any:
    """A value of the same kind as ``example``: a positive int, a number, or a sequence of as many of them.

    Returns:
        int | float | tuple: The value; a list becomes a tuple.

    Raises:
        TypeError, ValueError: It is of another kind.
    """
    if isinstance(example, tuple):
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise TypeError(f'{owner}: {name} must be a sequence of {len(example)}, got {said(value)}')
        if len(value) != len(example):
            raise ValueError(f'{owner}: {name} has {len(example)} entries, got {said(value)}')
        return tuple(check_like(owner, f'{name}[{i}]', v, e) for i, (v, e) in enumerate(zip(value, example)))
    if isinstance(example, float):
        return check_number(owner, name, value)
    return check_int(owner, name, value, MOST_BLOCKS if 'depth' in name or 'blocks' in name else MOST_CHANNELS)


def check_init_cfg(owner: str, init_cfg: Any) -> None:
    """Refuse what is no initialisation config of mmengine.

    Args:
        owner (str): Whose argument it is, for messages.
        init_cfg (dict | list[dict], optional): As in ``mmengine.model.BaseModule``. ``Pretrained`` takes a
            ``checkpoint``, and a ``prefix`` and a ``map_location`` if wanted.

    Raises:
        TypeError, ValueError: No such config.
    """
    if init_cfg is None:
        return
    for cfg in init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]:
        if not isinstance(cfg, Mapping):
            raise TypeError(f'{owner}: init_cfg must be None, a dict or a list of dicts, got {said(init_cfg)}')
        kind = cfg.get('type')
        if not isinstance(kind, type) and not (isinstance(kind, str) and WEIGHT_INITIALIZERS.get(kind)):
            raise ValueError(
                f'{owner}: init_cfg has no type {said(kind)}; choose from {sorted(WEIGHT_INITIALIZERS.module_dict)}'
            )
        if kind == 'Pretrained':
            check_pretrained(owner, **{k: v for k, v in cfg.items() if k != 'type'})


def check_pretrained(
    owner: str, checkpoint: Any = None, prefix: Optional[str] = None, map_location: Any = 'cpu', **more: Any
) -> None:
    """Refuse what ``dict(type='Pretrained', ...)`` does not take.

    Raises:
        TypeError: No checkpoint is named, a prefix is no text, or there is something else.
    """
    if not isinstance(checkpoint, str) or not checkpoint:
        raise TypeError(f"{owner}: init_cfg's checkpoint must be a path or a URL, got {said(checkpoint)}")
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"{owner}: init_cfg's prefix must be a text, got {said(prefix)}")
    if more:
        raise TypeError(
            f'{owner}: init_cfg of type Pretrained takes checkpoint, prefix and map_location, got {said(more)}'
        )
