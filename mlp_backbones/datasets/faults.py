"""Files that cannot be read: passed over in training up to a limit, never in evaluation.

The guard stands around the whole pipeline of a dataset. It gives None for a file that cannot be read, for which
mmengine's datasets take another sample at random (their ``max_refetch``). mmcv's ``ignore_empty`` gives None for every
error, those of settings too, and says nothing.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from PIL import Image

from ..utils.config import class_heads
from ..utils.errors import DataError
from .validation.files import image_problem, listed, quick_problem

HELP = 'tools/check_data.py CONFIG finds all such files.'

Head = tuple[str, int, int]
"""What a segmentation head can learn: its place in the config, the number of labels, and the label that it ignores."""


class FaultList:
    """The files passed over, in a file that the workers of all processes add to: a line for each, name, tab, reason.

    ``limit`` different files may be passed over; 0 refuses the first, and says ``hint``.
    """

    def __init__(self, path: str | os.PathLike, limit: int, hint: str = ''):
        self.path, self.limit, self.hint = Path(path), limit, hint

    def read(self) -> dict[str, str]:
        """Return name -> reason; two processes that meet the same file at once may have written it twice."""
        lines = self.path.read_text(errors='replace').splitlines() if self.path.exists() else []
        return dict(line.partition('\t')[::2] for line in lines)

    def add(self, name: str, reason: str) -> None:
        """Note a file, once.

        Raises:
            DataError: The limit is passed; the message names the files.
        """
        name, reason = (' '.join(str(s).split()) for s in (name, reason))
        if self.limit == 0:
            raise DataError(f'{name}: {reason}. {self.hint}{HELP}')
        if name not in self.read():
            with self.path.open('a', errors='replace') as file:  # one write, which systems do not mix with others
                file.write(f'{name}\t{reason}\n')
        found = self.read()
        if len(found) > self.limit:
            shown = '\n'.join(f'  {name}: {reason}' for name, reason in [*found.items()][:10])
            more = f'\n  ... all {len(found)} in {self.path}' if len(found) > 10 else ''
            raise DataError(
                f'{len(found)} files could not be read, and at most {self.limit} may be passed over:\n{shown}{more}\n'
                f'{HELP} default_hooks.faulty_files.max_faulty_files is the limit.'
            )


class GuardedPipeline(Compose):
    """A dataset's pipeline that gives None, and notes the file, where a file of the sample cannot be read.

    Where the files are good, an error is raised as it is: a setting does not fit. A label that a segmentation head does
    not have is refused with the file's name; in the loss it would be an index out of bounds, on a GPU an assertion of
    CUDA.
    """

    def __init__(self, transforms: list, faults: FaultList, heads: Sequence[Head] = ()) -> None:
        super().__init__(transforms)
        self.faults, self.heads = faults, heads

    def __call__(self, info: dict) -> dict | None:
        files = files_of(info)
        try:
            out = super().__call__(info)
        except (DataError, ImportError, MemoryError):
            raise
        except Exception as error:
            for path in files:
                unknown = not os.path.exists(path) and not isinstance(error, FileNotFoundError)  # on a server
                if problem := f'{type(error).__name__}: {error}' if unknown else image_problem(path):
                    self.faults.add(path, problem)
                    return None
            raise
        for path in files:
            if problem := quick_problem(path, decoded=True):
                self.faults.add(path, problem)
                return None
        sample: Any = out and out.get('data_samples')
        if hasattr(sample, 'gt_sem_seg'):
            path = sample.metainfo.get('seg_map_path')
            if problem := label_problem(sample.gt_sem_seg.data.squeeze(0), self.heads):
                raise DataError(f'{path}: {problem}. {HELP}')
            if problem := size_problem(path, sample.metainfo.get('ori_shape')):
                self.faults.add(path, problem)
                return None
        return out


def files_of(info: dict) -> list[str]:
    """Return the files of a sample: its image, and its label map if it has one."""
    return [path for key in ('img_path', 'seg_map_path') if isinstance(path := info.get(key), str)]


def label_problem(labels: Any, heads: Sequence[Head]) -> str | None:
    """Return which labels of a map, (H, W) as loaded, a head does not have, or None."""
    if labels.ndim != 2:
        return f'is not a label map: it is of shape {tuple(labels.shape)}, as loaded'
    values = np.unique(labels).tolist()
    for place, number, ignored in heads:
        if unknown := [label for label in values if label >= number and label != ignored]:
            return (
                f'has labels {listed(unknown)}, as loaded; {place}.num_classes leaves 0 to {number - 1}, '
                f'and {ignored} is ignored'
            )
    return None


def size_problem(path: Any, size: tuple[int, int] | None) -> str | None:
    """Return how a label map differs in size from its image, (height, width), or None."""
    if size is None or not path or not os.path.exists(path):  # on a server
        return None
    with Image.open(path) as labels:  # its header
        width, height = labels.size
    return None if (height, width) == tuple(size) else f'is {width}x{height} pixels; its image is {size[1]}x{size[0]}'


def labeled_heads(cfg: Mapping) -> list[Head]:
    """Return the heads of a segmentation config."""
    # A head of one class, with a sigmoid, tells two labels apart.
    return [
        (place, max(head['num_classes'], 2), head.get('ignore_index', 255))
        for place, head in class_heads(cfg.get('model') if cfg.get('default_scope') == 'mmseg' else None)
    ]


def leaf_datasets(dataset: Any) -> list:
    """Return the datasets that load files, inside any wrappers (repeated, concatenated, ...), each once."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inner[0] is not None:
        return list({id(leaf): leaf for d in inner for leaf in leaf_datasets(d)}.values())
    return [dataset] if hasattr(getattr(dataset, 'pipeline', None), 'transforms') else []


def local_files(leaves: list) -> list[str]:
    """Return the images and label maps of datasets that OpenCV or Pillow reads, and not from a server."""
    files: dict[str, None] = {}
    for leaf in leaves:
        owners = [leaf, *leaf.pipeline.transforms]
        readers = [getattr(o, name, None) or {} for o in owners for name in ('backend_args', 'file_client_args')]
        decoder = getattr(leaf.pipeline.transforms[0], 'imdecode_backend', None)
        local = all(reader.get('backend', 'local') in ('local', 'disk') for reader in readers)
        if local and decoder in ('cv2', 'pillow', 'turbojpeg'):
            paths = (path for index in range(len(leaf)) for path in files_of(leaf.get_data_info(index)))
            files.update((path, None) for path in paths if '://' not in path)
    return list(files)


def check_ends(files: list[str]) -> None:
    """Look at the first and last bytes of files, in several threads.

    Raises:
        DataError: Files are missing, empty or cut short; the message names them.
    """
    with ThreadPoolExecutor(16) as pool:
        bad = [f'{file}: {problem}' for file, problem in zip(files, pool.map(quick_problem, files)) if problem]
    if bad:
        more = f'\n... and {len(bad) - 10} more' if len(bad) > 10 else ''
        raise DataError('\n'.join(bad[:10]) + f'{more}. Evaluation passes over nothing. {HELP}')
