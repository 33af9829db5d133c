"""Every file of a config's datasets, looked at before training."""

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .annotations import (
    annotation_file,
    annotation_findings,
    class_names,
    coco_findings,
    dataset_class,
    kind_of,
    nodes,
    place_of,
)
from .coco import read_json
from .files import DataError, Finding, image_problem, labels_problem, listed, read_picture

SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class Problem:
    """Something wrong with one file."""

    level: str  # 'error' or 'warning'
    split: str  # 'train', 'val' or 'test'
    file: str
    problem: str


@dataclass
class Sample:
    """An image, what the annotations say of it, and its label map."""

    image: str
    size: tuple[float, float] | None = None  # (width, height)
    labels: str | None = None
    settings: dict = field(default_factory=dict)  # of ``labels_problem``


@dataclass
class Source:
    """One dataset of a config."""

    split: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    classes: list[str] | None = None  # in the order of the labels
    folders: list[str] | None = None  # where there is one for each class
    note: str = ''

    def add(self, file: object, problem: object, level: str = 'error') -> None:
        self.problems.append(Problem(level, self.split, str(file), str(problem)))

    def add_all(self, file: object, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(file, finding, finding.level)


def read_sources(cfg, nodes: Iterable[tuple[str, dict]]) -> list[Source]:
    """Read the annotations of a config's datasets.

    Args:
        cfg (mmengine.Config): The config.
        nodes (Iterable): (split, settings) of each dataset.

    Returns:
        list[Source]: One for each different dataset, with what is wrong with its annotations.
    """
    scope = cfg.default_scope
    heads = _num_classes(cfg.model)
    sources: dict[str, Source] = {}
    for split, node in nodes:
        cls = dataset_class(node, scope)
        kind = kind_of(cls)
        settings = {k: v for k, v in node.items() if k != 'pipeline'}
        key = repr(sorted(settings.items(), key=lambda item: item[0]))
        if key in sources:
            continue
        sources[key] = source = Source(split)
        if cls is None:
            source.add(node.get('data_root') or '', f'{scope} has no dataset {node.get("type")!r}')
        elif cls.__name__.startswith('CIFAR'):
            source.note = f'{cls.__name__}: one archive, which mmpretrain verifies by itself'
        elif kind == 'coco':
            _read_coco(source, node, cls)
        else:
            if path := annotation_file(node):
                source.add_all(path, annotation_findings(node, scope))
            if not source.problems or kind is None:
                _read_dataset(source, node, scope, kind, heads)
        if heads and source.classes is not None and len(source.classes) > heads:
            source.add(place_of(node), f'has {len(source.classes)} classes; the head of the model has {heads}')
    _compare(list(sources.values()))
    return list(sources.values())


def _num_classes(model) -> int | None:
    """The largest ``num_classes`` of a model's heads."""
    return max((n['num_classes'] for n in nodes(model) if isinstance(n.get('num_classes'), int)), default=None)


def _read_coco(source: Source, node: dict, cls: type) -> None:
    path = annotation_file(node) or ''
    names = class_names(node, cls)
    try:
        data = read_json(path)
    except DataError as error:
        source.add(path, error)
        return
    source.add_all(path, coco_findings(data, node, cls))
    if not isinstance(data, dict):
        return
    prefix = os.path.join(node.get('data_root') or '', (node.get('data_prefix') or {}).get('img', ''))
    images, categories = data.get('images'), data.get('categories')
    for image in images if isinstance(images, list) else ():
        if isinstance(image, dict) and isinstance(image.get('file_name'), str):
            size: Any = (image.get('width'), image.get('height'))
            known = all(type(s) in (int, float) for s in size)
            source.samples.append(Sample(os.path.join(prefix, image['file_name']), size if known else None))
    categories = categories if isinstance(categories, list) else []
    found: list[Any] = [c.get('name') for c in categories if isinstance(c, dict)]
    source.classes = [c for c in found if names is None or c in names]


def _read_dataset(source: Source, node: dict, scope: str, kind: str | None, heads: int | None) -> None:
    """Let the framework list the images."""
    build = importlib.import_module(f'{scope}.registry').DATASETS.build
    settings = {**node, 'pipeline': []}
    try:
        if kind == 'classification' and not annotation_file(node):
            dataset = build({**settings, 'lazy_init': True})
            if dataset.with_label and not dataset.ann_file:
                _read_folders(source, dataset)
                return
        dataset = build({**settings, 'lazy_init': False})
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    except Exception as error:  # whatever a framework, or a dataset of the user's, raises
        empty = 'need at least one array to concatenate' in str(error)
        source.add(
            place_of(node), 'has no images' if empty else f'{scope} cannot read it: {type(error).__name__}: {error}'
        )
        return
    names = dataset.metainfo.get('classes')
    source.classes = None if names is None else list(names)
    labels = {}
    if kind == 'segmentation':
        limits = [n for n in (heads, None if names is None else len(names)) if n is not None]
        labels = dict(
            num_classes=min(limits, default=None),
            reduce_zero_label=dataset.reduce_zero_label,
            label_map=dataset.label_map,
        )
    for info in infos:
        path = info.get('img_path')
        if isinstance(path, str):
            source.samples.append(Sample(path, None, info.get('seg_map_path'), labels))
    if kind == 'segmentation' and not annotation_file(node):
        used = {os.path.realpath(sample.labels) for sample in source.samples if sample.labels}
        folder = Path(dataset.data_prefix.get('seg_map_path') or '')
        for path in sorted(folder.rglob(f'*{dataset.seg_map_suffix}')):
            if os.path.realpath(path) not in used:
                source.add(path, 'has no image, and is left out', 'warning')
    if not source.samples:
        source.note = f'{type(dataset).__name__}: its images are not single files'


def _read_folders(source: Source, dataset) -> None:
    """A folder for each class: none empty, as many as there are classes."""
    root = Path(dataset.img_prefix)
    source.folders = sorted(p.name for p in root.iterdir() if p.is_dir())
    if dataset.CLASSES is not None and len(source.folders) != len(dataset.CLASSES):
        have = listed(source.folders)
        source.add(root, f'has {len(source.folders)} folders ({have}); there are {len(dataset.CLASSES)} classes')
    for name in source.folders:
        files = [
            os.path.join(folder, file)
            for folder, _, files in os.walk(root / name, followlinks=True)
            for file in files
            if not file.startswith('.') and dataset.is_valid_file(file)
        ]
        if not files:
            source.add(root / name, 'is a class without images')
        source.samples += map(Sample, sorted(files))
    source.classes = list(dataset.CLASSES or source.folders)


def _compare(sources: list[Source]) -> None:
    """Training and validation must have the same labels."""
    first = next((s for s in sources if s.split == 'train'), None)
    for source in sources:
        mine, theirs = (s and (s.folders or s.classes) for s in (source, first))
        if source is first or not mine or not theirs or mine == theirs:
            continue
        more = [f'only here: {listed(sorted(set(mine) - set(theirs)))}'] if set(mine) - set(theirs) else []
        less = [f'only in train: {listed(sorted(set(theirs) - set(mine)))}'] if set(theirs) - set(mine) else []
        source.add(source.split, f'other classes than in train; {"; ".join(more + less) or "in another order"}')


def check_sample(sample: Sample) -> list[tuple[str, str]]:
    """(file, problem) for what is wrong with one image and its label map."""
    found = []
    if problem := image_problem(sample.image, sample.size):
        found.append((sample.image, problem))
    if sample.labels:
        size = read_picture(sample.image)[0]
        if problem := labels_problem(sample.labels, size, **sample.settings):
            found.append((sample.labels, problem))
    return found


def _quiet() -> None:
    """OpenCV and libjpeg complain on standard error by themselves; what they say has no file's name."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def check_samples(
    samples: list[Sample], workers: int, track: Callable[[Iterable, int], Iterable] = lambda items, number: items
) -> Iterator[list[tuple[str, str]]]:
    """``check_sample`` of each, in order.

    Args:
        samples (list[Sample]): What to look at.
        workers (int): Processes; 0 for this one.
        track (Callable): Wraps an iterable of a given length, to show progress.

    Raises:
        DataError: A worker was killed, by a lack of memory for example.
    """
    if workers == 0:
        yield from track(map(check_sample, samples), len(samples))
        return
    with ProcessPoolExecutor(workers, initializer=_quiet) as pool:
        try:
            yield from track(pool.map(check_sample, samples, chunksize=16), len(samples))
        except BrokenProcessPool as error:
            raise DataError(
                'a process that decodes images was killed, perhaps for want of memory: fewer --workers'
            ) from error
