"""The images and the frames of videos that predictions are made of. Arrays are (H, W, C), uint8, colors BGR."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..datasets.validation.files import read_image
from ..deploy.runtime import FLAGS, IMAGES, natural
from ..utils.errors import DataError, UserError

VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm')


class Picture(NamedTuple):
    """An image file, or a frame of a video.

    Attributes:
        name (str): Unique among those of one run, without a suffix.
        file (str): Name of the file that it is from.
        image (np.ndarray | None): None where it could not be read.
        frame (int | None): Of a video, from 1.
        problem (str): Why it could not be read.
    """

    name: str
    file: str
    image: Any
    frame: int | None = None
    problem: str = ''


def list_pictures(source: str | Path) -> list[Path]:
    """Return the image and video files of a folder, in natural order (2 before 10), or the one file given.

    Raises:
        UserError: It does not exist, or holds nothing of these kinds.
    """
    source = Path(source)
    kinds = f'images ({" ".join(IMAGES)}) or videos ({" ".join(VIDEOS)})'
    if source.is_dir():
        paths = [p for p in source.iterdir() if p.suffix.lower() in IMAGES + VIDEOS and p.is_file()]
        if not paths:
            folders = ', '.join(sorted(p.name for p in source.iterdir() if p.is_dir())[:5])
            raise UserError(f'the folder {source} has no {kinds}' + (f'; its folders are {folders}' if folders else ''))
        return natural(paths)
    if not source.exists():
        raise UserError(f'the image, video or folder {source} does not exist')
    if source.suffix.lower() not in IMAGES + VIDEOS:
        raise UserError(f'{source} is neither an image nor a video by its name; it must be one of the {kinds}')
    return [source]


def flags_of(channels: int) -> int:
    """Return OpenCV's flags to read images of so many channels."""
    import cv2

    return FLAGS.get(channels, cv2.IMREAD_UNCHANGED)


def read_pictures(paths: Sequence[Path], channels: int = 3) -> Iterator[Picture]:
    """Yield every image of so many channels, and every frame of every video; a truncated image counts as unreadable.

    Their names are those of the files without suffixes; with them, where two would be the same or might be, as of a
    folder with a video.
    """
    import cv2

    unique = len({p.stem for p in paths}) == len(paths)
    unique = unique and (len(paths) == 1 or all(p.suffix.lower() in IMAGES for p in paths))
    for path in paths:
        name = path.stem if unique else path.name
        if path.suffix.lower() in IMAGES:
            try:
                yield Picture(name, path.name, read_image(path, flags_of(channels)))
            except DataError as error:
                yield Picture(name, path.name, None, problem=str(error).removeprefix(f'{path}: '))
            continue
        video = cv2.VideoCapture(str(path))
        number = 0
        while (frame := video.read()[1]) is not None:
            number += 1
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[..., None] if channels == 1 else frame
            yield Picture(f'{name}_{number:06d}', path.name, frame, number)
        if not number:
            yield Picture(name, path.name, None, problem='OpenCV finds no frame in it')


def batches(pictures: Iterable[Picture], size: int, mixed: bool) -> Iterator[list[Picture]]:
    """Yield readable pictures in groups of up to ``size``; unless ``mixed``, those of a group have one shape."""
    for _, group in itertools.groupby(pictures, key=lambda picture: None if mixed else picture.image.shape):
        while batch := list(itertools.islice(group, size)):
            yield batch
