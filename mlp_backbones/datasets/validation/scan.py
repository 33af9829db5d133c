"""Every file of a config's datasets, looked at before training: the work of ``tools/check_data.py``."""

import contextlib
import functools
import importlib
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.registry import DefaultScope
from PIL import Image

from ...utils.config import annotation_file, class_heads, place_of
from ...utils.errors import DataError
from ..faults import Head, files_of, label_problem, labeled_heads, size_problem
from .coco import annotation_findings, category_ids, read_json
from .files import image_problem, listed


class Problem(NamedTuple):
    """Something wrong with one file, or with a dataset."""

    level: str  # 'error' or 'warning'
    split: str  # 'train', 'val' or 'test'
    file: str
    problem: str


class Source:
    """One dataset of a config, and what is wrong with it as a whole: its annotations, classes and pipeline.

    Attributes:
        dataset (Sequence): Its images; empty where the framework cannot build it, or they are not single files.
        classes (list[str]): In the order of the labels.
    """

    def __init__(self, split: str, node: dict, cfg) -> None:
        self.split, self.place, self.heads = split, place_of(node), labeled_heads(cfg)
        self.dataset: Any = ()
        self.classes: list[str] = []
        self.problems: list[Problem] = []
        for finding in annotation_findings(node, cfg):
            self.add(self.place, finding, finding.level)
        # Images without annotations too.
        settings = {key: value for key, value in node.items() if key not in ('filter_cfg', 'lazy_init')}
        try:
            dataset = importlib.import_module(f'{cfg.default_scope}.registry').DATASETS.build(settings)
        except Exception as error:  # whatever a framework, or a dataset of the user's, raises
            if all(problem.level != 'error' for problem in self.problems):
                self.add(self.place, f'{cfg.default_scope} cannot build the dataset: {type(error).__name__}: {error}')
            return
        if not len(dataset):
            self.add(self.place, 'has no images')
        elif hasattr(dataset, 'get_data_info') and files_of(dataset.get_data_info(0)):
            self.dataset = dataset
            self._check_classes(node, cfg)
            self._try_pipeline()

    def add(self, file: object, problem: object, level: str = 'error') -> None:
        self.problems.append(Problem(level, self.split, str(file), str(problem)))

    def _check_classes(self, node: dict, cfg) -> None:
        """Check that the classes have images, and that the model's head has them all."""
        dataset, path = self.dataset, annotation_file(node)
        self.classes = list(getattr(dataset, 'folder_to_idx', dataset.metainfo.get('classes') or ()))
        if hasattr(dataset, 'cat_ids') and path:  # mmdet's labels follow the file
            with contextlib.suppress(DataError):  # among the findings
                self.classes = [name for name in category_ids(read_json(path)) if name in self.classes]
        number = len(self.classes)
        if hasattr(dataset, 'get_gt_labels') and node.get('with_label', True):
            labels = {label for index in range(len(dataset)) for label in dataset.get_cat_ids(index)}
            number = max([number, *(label + 1 for label in labels)])
            for name, label in getattr(dataset, 'folder_to_idx', {}).items():
                if label not in labels:
                    self.add(Path(self.place, name), 'is a class without images')
        fewest = 2 if cfg.default_scope == 'mmseg' else 1  # a head of one class, with a sigmoid, tells two labels apart
        heads = min((max(head['num_classes'], fewest) for _, head in class_heads(cfg.model)), default=number)
        if number > heads:
            self.add(self.place, f'has {number} classes; the head of the model has {heads}')

    def _try_pipeline(self) -> None:
        """Run the config's pipeline on a few readable images: a setting that does not fit the data is named."""
        last = len(self.dataset) - 1
        for index in sorted({0, last // 2, last}):
            info = self.dataset.get_data_info(index)
            files = files_of(info)
            if any(map(image_problem, files)) or info.get('instances') == []:
                continue  # said by the scan, or filtered out
            for transform in self.dataset.pipeline.transforms:
                try:
                    info = transform(info)
                except Exception as error:
                    name = type(transform).__name__
                    self.add(files[0], f'the pipeline fails at {name}: {type(error).__name__}: {error}')
                    self.heads = []  # labels cannot be loaded either
                    return
                if info is None:
                    break

    def scan(self, workers: int) -> Iterator[list[tuple[str, str]]]:
        """Yield (file, problem) for what is wrong with each sample, in order; ``workers`` threads decode."""
        with ThreadPool(workers) as pool:
            yield from pool.imap(functools.partial(sample_problems, self.dataset, self.heads), range(len(self.dataset)))


def sample_problems(dataset: Any, heads: Sequence[Head], index: int) -> list[tuple[str, str]]:
    """Return (file, problem) for what is wrong with the image and the label map of a sample."""
    info = dataset.get_data_info(index)
    size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
    found = [(path, problem) for path in files_of(info) if (problem := image_problem(path, size))]
    path = info.get('seg_map_path')
    if not found and path and heads and (problem := _label_problem(dataset, heads, info)):
        found.append((path, problem))
    return found


def _label_problem(dataset: Any, heads: Sequence[Head], info: dict) -> str | None:
    path = info['seg_map_path']
    pixels = np.asarray(Image.open(path))
    if pixels.ndim != 2 or pixels.dtype.kind not in 'iub' or pixels.max() > 255:  # mmseg keeps eight bits
        return f'is not a label map: it has {pixels.shape} pixels of {pixels.dtype} up to {pixels.max()}'
    for load in dataset.pipeline.transforms:
        if type(load).__name__.startswith('Load'):
            info = load(info)
    return size_problem(path, info['ori_shape']) or label_problem(info['gt_seg_map'], heads)


def read_sources(cfg, nodes: Iterable[tuple[str, dict]]) -> list[Source]:
    """Return a source for each different dataset of a config; ``nodes`` are their splits and settings."""
    different: dict[str, tuple[str, dict]] = {}
    for split, node in nodes:
        different.setdefault(repr(sorted((k, repr(v)) for k, v in node.items() if k != 'pipeline')), (split, node))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        sources = [Source(split, node, cfg) for split, node in different.values()]
    train = next((source.classes for source in sources if source.split == 'train'), [])
    for source in sources:
        if train and source.classes and source.classes != train:
            differ = sorted(set(source.classes) ^ set(train))
            text = f'only one of them has {listed(differ)}' if differ else 'in another order'
            source.add(source.place, f'other classes than in train: {text}')
    return sources
