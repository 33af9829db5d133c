"""What is wrong with an image file: quickly, as training goes, and wholly, for a scan beforehand."""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ...utils.errors import DataError

ENDS = {b'\x89PNG': b'IEND', b'\xff\xd8': b'\xff\xd9'}  # how PNG and JPEG begin and end


def image_problem(path: str | os.PathLike, size: tuple[float, float] | None = None) -> str | None:
    """Return why an image cannot be trained on, or None.

    OpenCV decodes it, as the frameworks do, and Pillow, which does not fill up with gray what is not there.

    Args:
        path (str | PathLike): A local file.
        size (tuple, optional): The (width, height) that the annotations say.
    """
    try:
        content = Path(path).read_bytes()
        if not content:
            return 'is empty (0 bytes)'
        with contextlib.suppress(Image.DecompressionBombError):  # OpenCV takes larger ones
            Image.open(io.BytesIO(content)).load()
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except FileNotFoundError:
        return 'does not exist'
    except UnidentifiedImageError:
        return f'is not an image; it starts with {content[:16]!r}'
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds, OSError, SyntaxError, struct.error, ... for damaged files
        return f'cannot be decoded: {error}'
    if image is None:
        return 'OpenCV cannot decode it'
    height, width = image.shape[:2]  # turned by EXIF
    if size is not None and (width, height) != tuple(size):
        return f'is {width}x{height} pixels; the annotations say {size[0]}x{size[1]}'
    return None


def quick_problem(path: str | os.PathLike, decoded: bool = False) -> str | None:
    """Return why a local file cannot be an image, or None, from the ends of a JPEG or PNG; others are decoded.

    Args:
        path (str | PathLike): A local file.
        decoded (bool): A decoder has read it, so that only a JPEG or PNG that is cut short is a problem: OpenCV before
            4.12 fills up with gray. Defaults to False.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(4)
            file.seek(max(file.seek(0, os.SEEK_END) - 64, 0))
            tail = file.read()
    except OSError:
        head = tail = b''
    end = next((end for start, end in ENDS.items() if head.startswith(start)), None)
    if end in tail if end else decoded:
        return None
    return image_problem(path)  # what follows the end of a JPEG may be long, and harmless


def read_image(path: str | os.PathLike, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an image file as the frameworks do when they train.

    Args:
        path (str | PathLike): A local file.
        flags (int): OpenCV's, for images of other channels. Defaults to colors.

    Returns:
        np.ndarray: (H, W, C), uint8, colors BGR.

    Raises:
        DataError: The file does not exist, is not an image, or is cut short.
    """
    image: Any = cv2.imread(str(path), flags)
    if problem := image_problem(path) if image is None else quick_problem(path, decoded=True):
        raise DataError(f'{path}: {problem}')
    return image.reshape(*image.shape[:2], -1)


def listed(values: Sequence) -> str:
    """Return the first eight of some values, each in up to 40 characters, and how many more there are."""
    shown = ', '.join(f'{value!s:.40}' for value in values[:8]).encode('utf-8', 'replace').decode()
    return shown + (f' and {len(values) - 8} more' if len(values) > 8 else '')
