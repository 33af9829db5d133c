"""What is wrong with an image file: quickly, as training goes, and wholly, for a scan beforehand.

An *error* is what a framework fails on or would learn or measure something wrong from; a *warning* is what it leaves
out by itself, as it does for a few boxes of COCO.
"""

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.errors import DataError

ENDS = {b'\x89PNG': b'IEND', b'\xff\xd8': b'\xff\xd9'}  # how PNG and JPEG begin and end


@dataclass
class Finding:
    """One kind of problem: how often it is there, and the first few places."""

    level: str  # 'error' or 'warning'
    text: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.examples:
            return self.text
        more = ', ...' if self.count > len(self.examples) else ''
        return f'{self.text} ({self.count}: {", ".join(self.examples)}{more})'


class Findings:
    """A list of findings that grows by kinds."""

    def __init__(self) -> None:
        self._kinds: dict[str, Finding] = {}

    def add(self, text: str, where: object = None, level: str = 'error') -> None:
        finding = self._kinds.setdefault(text, Finding(level, text))
        finding.count += 1
        if where is not None and len(finding.examples) < 5:
            finding.examples.append(short(where))

    def list(self) -> list[Finding]:
        return list(self._kinds.values())


def decode(path: str | os.PathLike) -> Any:
    """Decode a whole image file with Pillow, which does not fill up with gray what is not there.

    Returns:
        PIL.Image.Image: The pixels as stored.

    Raises:
        DataError: What is wrong with the file, without its name.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError('does not exist') from error
    except (OSError, ValueError) as error:
        raise DataError(f'cannot be read: {getattr(error, "strerror", None) or error}') from error
    if not content:
        raise DataError('is empty (0 bytes)')
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except UnidentifiedImageError as error:
        raise DataError(f'is not an image; it starts with {content[:16]!r}') from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds, OSError, SyntaxError, struct.error, ... for damaged files
        raise DataError(f'cannot be decoded: {error}') from error
    if content.startswith(b'\x89PNG') and b'IEND' not in content[-64:]:
        raise DataError('is cut short')
    return picture


def image_problem(path: str | os.PathLike, size: tuple[float, float] | None = None) -> str | None:
    """Return why an image cannot be trained on, or None; Pillow and OpenCV decode it, as the frameworks do.

    Args:
        path (str | PathLike): A local file.
        size (tuple, optional): The (width, height) that the annotations say.
    """
    import cv2

    try:
        decode(path)
        image = cv2.imread(str(path))
    except (DataError, cv2.error) as error:
        return str(error)
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


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file as the frameworks do when they train.

    Args:
        path (str | PathLike): A local file.

    Returns:
        np.ndarray: (H, W, 3), BGR, uint8.

    Raises:
        DataError: The file does not exist, is not an image, or is cut short.
    """
    import cv2

    image: Any = cv2.imread(str(path))
    if problem := image_problem(path) if image is None else quick_problem(path, decoded=True):
        raise DataError(f'{path}: {problem}')
    return image


def short(value: object) -> str:
    """Return a value as a message shows it, in up to 40 characters."""
    text = repr(value) if isinstance(value, (list, dict, float, type(None))) else str(value)
    return text.encode('utf-8', 'replace').decode() if len(text) <= 40 else text[:37] + '...'


def listed(values: list) -> str:
    """Return the first eight of some values, and how many more there are."""
    return ', '.join(map(short, values[:8])) + (f' and {len(values) - 8} more' if len(values) > 8 else '')
