"""Every file of a config's datasets, looked at before training."""

import importlib
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from ...utils.errors import DataError
from ..faults import Head, files_of, heads_of, label_problem, size_problem
from .annotations import (
    annotation_file,
    annotation_findings,
    class_heads,
    kind_of,
    place_of,
)
from .coco import category_ids, read_json
from .files import decode, image_problem, listed


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file."""

    level: str  # 'error' or 'warning'
    split: str  # 'train', 'val' or 'test'
    file: str
    problem: str


@dataclass
class Source:
    """One dataset of a config."""

    split: str
    samples: Any = ()  # ``Samples`` where the framework can build it
    problems: list[Problem] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)  # in the order of the labels
    note: str = ''

    def add(self, file: object, problem: object, level: str = 'error') -> None:
        self.problems.append(Problem(level, self.split, str(file), str(problem)))


class Samples:
    """The samples of a dataset, each as (file, problem) for what is wrong with its image and its label map."""

    def __init__(self, dataset: Any, heads: list[Head]) -> None:
        self.dataset, self.heads = dataset, heads
        transforms = getattr(dataset.pipeline, 'transforms', ())
        self.loads = [t for t in transforms if type(t).__name__.startswith('Load')]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> list[tuple[str, str]]:
        info = self.dataset.get_data_info(index)
        size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
        found = [(path, problem) for path in files_of(info) if (problem := image_problem(path, size))]
        path = info.get('seg_map_path')
        if not found and path and self.heads and (problem := self._label_problem(path, info)):
            found.append((path, problem))
        return found

    def _label_problem(self, path: str, info: dict) -> str | None:
        pixels = np.asarray(decode(path))
        if pixels.ndim != 2 or pixels.dtype.kind not in 'iub' or pixels.max() > 255:  # mmseg keeps eight bits
            return f'is not a label map: it has {pixels.shape} pixels of {pixels.dtype} up to {pixels.max()}'
        for load in self.loads:
            info = load(info)
        return size_problem(path, info['ori_shape']) or label_problem(info['gt_seg_map'], self.heads)


def read_sources(cfg, nodes: Iterable[tuple[str, dict]]) -> list[Source]:
    """Build the datasets of a config, and find what is wrong with their annotations, classes and pipelines.

    Args:
        cfg (mmengine.Config): The config.
        nodes (Iterable): (split, settings) of each dataset.

    Returns:
        list[Source]: One for each different dataset.
    """
    sources: dict[str, Source] = {}
    for split, node in nodes:
        key = repr(sorted((k, repr(v)) for k, v in node.items() if k != 'pipeline'))
        if key not in sources:
            sources[key] = Source(split)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                _read(sources[key], node, cfg)
    _compare(list(sources.values()))
    return list(sources.values())


def _read(source: Source, node: dict, cfg) -> None:
    scope, place = cfg.default_scope, place_of(node)
    if str(node['type']).rpartition('.')[2].startswith('CIFAR'):
        source.note = f'{node["type"]}: one archive, which mmpretrain verifies by itself'
        return
    for finding in annotation_findings(node, scope):
        source.add(place, finding, finding.level)
    settings = {**node, 'lazy_init': False}
    if 'filter_cfg' in node:
        settings['filter_cfg'] = None  # images without annotations too
    try:
        dataset = importlib.import_module(f'{scope}.registry').DATASETS.build(settings)
    except Exception as error:  # whatever a framework, or a dataset of the user's, raises
        if not any(problem.level == 'error' for problem in source.problems):
            source.add(place, f'{scope} cannot build the dataset: {type(error).__name__}: {error}')
        return
    if not len(dataset):
        source.add(place, 'has no images')
        return
    if not hasattr(dataset, 'get_data_info') or not files_of(dataset.get_data_info(0)):
        source.note = f'{node["type"]}: its images are not single files'
        return
    problem = _pipeline_problem(dataset)
    if problem:
        source.add(*problem)
    source.samples = Samples(dataset, [] if problem else heads_of(cfg))
    _check_classes(source, node, dataset, cfg)


def _check_classes(source: Source, node: dict, dataset: Any, cfg) -> None:
    """Check that the classes have images, and that the model's head has them all."""
    place, kind, path = place_of(node), kind_of(type(dataset)), annotation_file(node)
    source.classes = list(dataset.metainfo.get('classes') or ())
    if kind == 'coco' and path:
        with suppress(DataError):  # among the findings
            source.classes = [name for name in category_ids(read_json(path)) if name in source.classes]
    number = len(source.classes)
    if kind == 'classification' and node.get('with_label', True):
        labels = set(dataset.get_gt_labels().tolist())
        number = max(number, max(labels) + 1)
        if not path:
            source.classes = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
            empty = [name for label, name in enumerate(source.classes) if label not in labels]
            for name in empty:
                source.add(os.path.join(place, name), 'is a class without images')
    heads = min((head['num_classes'] for _, head in class_heads(cfg.model)), default=number)
    if heads == 1 and cfg.default_scope == 'mmseg':
        heads = 2  # with a sigmoid it tells two labels apart
    if number > heads:
        source.add(place, f'has {number} classes; the head of the model has {heads}')


def _pipeline_problem(dataset) -> tuple[str, str] | None:
    """Run the config's pipeline on a few readable images: return where a setting does not fit the data, and how."""
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1}):
        info = dataset.get_data_info(index)
        files = files_of(info)
        if any(map(image_problem, files)) or info.get('instances') == []:
            continue  # said by the scan, or filtered out
        for transform in getattr(dataset.pipeline, 'transforms', ()):
            try:
                info = transform(info)
            except Exception as error:
                return files[0], f'the pipeline fails at {type(transform).__name__}: {type(error).__name__}: {error}'
            if info is None:
                break
    return None


def _compare(sources: list[Source]) -> None:
    """Check that training and validation have the same labels."""
    first = next((source for source in sources if source.split == 'train'), Source(''))
    for source in sources:
        mine, theirs = source.classes, first.classes
        if not mine or not theirs or mine == theirs:
            continue
        more = [f'only here: {listed(sorted(set(mine) - set(theirs)))}'] if set(mine) - set(theirs) else []
        less = [f'only in train: {listed(sorted(set(theirs) - set(mine)))}'] if set(theirs) - set(mine) else []
        source.add(source.split, f'other classes than in train; {"; ".join(more + less) or "in another order"}')


def _quiet(worker: int) -> None:
    """OpenCV and libjpeg complain on standard error by themselves; what they say has no file's name."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def check_samples(samples: Samples, workers: int) -> Iterable[list[tuple[str, str]]]:
    """Return what is wrong with each sample, in order; ``workers`` is the number of processes, 0 for this one."""
    return DataLoader(samples, batch_size=None, num_workers=workers, collate_fn=list, worker_init_fn=_quiet)  # type: ignore
