"""What is wrong with an image or a label map: cheaply, as training goes, and wholly, for a scan beforehand.

An *error* is what a framework fails on or would learn or measure something wrong from; a *warning* is what it leaves
out by itself, as it does for a few boxes of COCO.
"""

import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

IGNORED = 255  # the label that losses leave out


class DataError(Exception):
    """Data that cannot be used; the message names the file and what is wrong with it."""

    def __init__(self, message: str):
        # An error in a worker of a dataloader arrives as text, with the worker's traceback before the message.
        super().__init__(message.rpartition(f'{__name__}.{type(self).__name__}: ')[2].rstrip())


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

    def list(self, level: str | None = None) -> list[Finding]:
        return [f for f in self._kinds.values() if level in (None, f.level)]


def cut_short(path: str | os.PathLike) -> bool:
    """Whether a local JPEG or PNG lacks its end: some versions of OpenCV read such files and fill up with grey.

    Only the first and last bytes are read, and the whole where these leave a doubt. False where there is no such file.
    """
    try:
        with open(path, 'rb') as file:
            head = file.read(4)
            file.seek(max(file.seek(0, os.SEEK_END) - 64, 0))
            tail = file.read()
    except OSError:
        return False
    if head == b'\x89PNG':
        return b'IEND' not in tail
    if head[:2] != b'\xff\xd8' or b'\xff\xd9' in tail:
        return False
    return file_problem(path) is not None  # what follows the end may be long, and harmless


def file_problem(path: str | os.PathLike) -> str | None:
    """Why a local file cannot be an image of a dataset, or None."""
    return read_picture(path)[1]


def read_picture(path: str | os.PathLike, keep: bool = False) -> tuple[Any, str | None]:
    """Decode a whole image file.

    Args:
        path (str | PathLike): A local file.
        keep (bool): Return the pixels as stored, without the palette, instead of the size. Defaults to False.

    Returns:
        tuple: The size (width, height) as the frameworks load it, turned by EXIF, or an array (H, W) or (H, W, C);
            and None. Or None, and what is wrong.
    """
    from PIL import Image, ImageOps

    path = Path(path)
    try:
        if not path.is_file():
            there = path.exists() or path.is_symlink()
            return None, 'is no file, or a link to nothing' if there else 'there is no such file'
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        return None, f'cannot be read: {getattr(error, "strerror", None) or error}'
    if not content:
        return None, 'is empty (0 bytes)'
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(content)) as picture:
                picture.load()
                if keep:
                    return np.asarray(picture), None
                size = ImageOps.exif_transpose(picture).size
    except Exception as error:  # PIL raises many kinds, OSError, SyntaxError, struct.error, ... for damaged files
        if isinstance(error, MemoryError):
            raise
        start = content[:16]
        if 'cannot identify' in str(error):
            return None, f'is no image; it starts with {start!r}'
        return None, f'cannot be decoded: {error}'
    if content.startswith(b'\x89PNG') and b'IEND' not in content[-64:]:
        return None, 'is cut short'
    return size, None


def image_problem(path: str | os.PathLike, size: tuple[float, float] | None = None) -> str | None:
    """Why an image cannot be trained on, or None; it is decoded by Pillow and by OpenCV, as the frameworks do.

    Args:
        path (str | PathLike): A local file.
        size (tuple, optional): The (width, height) that the annotations say.
    """
    import cv2

    seen, problem = read_picture(path)
    if problem:
        return problem
    try:
        decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        return f'OpenCV cannot decode it: {error.err or error}'
    if decoded is None:
        return 'OpenCV cannot decode it'
    if size is not None and tuple(seen) != tuple(size):
        return f'is {seen[0]}x{seen[1]} pixels; the annotations say {size[0]}x{size[1]}'
    return None


def labels_problem(
    path: str | os.PathLike,
    size: tuple[int, int] | None,
    num_classes: int | None,
    reduce_zero_label: bool = False,
    label_map: dict[int, int] | None = None,
) -> str | None:
    """Why a label map cannot be trained on, or None.

    Args:
        path (str | PathLike): A local file of class indices, (H, W).
        size (tuple, optional): (width, height) of its image.
        num_classes (int, optional): Labels must be below, or 255. Without, only the format is checked.
        reduce_zero_label (bool): 0 is left out and classes start at 1. Defaults to False.
        label_map (dict, optional): Labels in the file -> labels of the dataset.
    """
    labels, problem = read_picture(path, keep=True)
    if problem:
        return problem
    if labels.ndim != 2 or labels.dtype.kind not in 'iub':
        return f'is no label map: (height, width) of integers is needed, it has {labels.shape} of {labels.dtype}'
    if size is not None and labels.shape[::-1] != tuple(size):
        return f'is {labels.shape[1]}x{labels.shape[0]} pixels; its image is {size[0]}x{size[1]}'
    values = np.unique(labels)
    kept = [int(v) for v in values if not (v == IGNORED or (reduce_zero_label and v == 0))]
    learnt = [(v, (label_map or {}).get(v - reduce_zero_label, v - reduce_zero_label)) for v in kept]
    limit = IGNORED if num_classes is None else num_classes
    wrong = [v for v, label in learnt if label != IGNORED and not 0 <= label < limit]
    if wrong:
        first = 1 if reduce_zero_label else 0
        allowed = f'{first} to {limit - 1 + first}, {"0 and " if reduce_zero_label else ""}255'
        return f'has labels {listed(wrong)}; with {limit} classes they are {allowed}'
    return None


def short(value: object) -> str:
    """A value as a message shows it, in up to 40 characters."""
    text = repr(value) if isinstance(value, (list, dict, float, type(None))) else str(value)
    return text.encode('utf-8', 'replace').decode() if len(text) <= 40 else text[:37] + '...'


def listed(values: list) -> str:
    """The first eight of some values, and how many more there are."""
    return ', '.join(map(short, values[:8])) + (f' and {len(values) - 8} more' if len(values) > 8 else '')
