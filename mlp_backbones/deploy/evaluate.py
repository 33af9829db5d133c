"""The accuracy of an exported model, as the evaluator of a config judges it."""

import contextlib
import copy
import importlib
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..utils.cli import quiet_log
from ..utils.config import dataset_nodes
from ..utils.errors import UserError
from .description import task_of
from .runtime import Model, Runtime, RuntimeProblem


def open_runtime(path: str | Path, engine: str | None = None) -> Runtime:
    """Return the runtime of a file, for tools: ``UserError`` where it cannot be used."""
    try:
        return Runtime(path, engine)
    except RuntimeProblem as error:
        raise UserError(str(error)) from error


def images_of(cfg, settings: Any, annotations: bool) -> Any:
    """Build a dataset whose images are as they are read, neither resized nor cropped.

    Args:
        cfg (mmengine.Config): Of the model. Images are read and packed as in its test pipeline.
        settings: Of the dataset, wrapped or not.
        annotations (bool): Load annotations too, for evaluators.

    Returns:
        Dataset: Its items have ``inputs`` (C, H, W), uint8, and ``data_samples``.
    """
    from mmengine.registry import DefaultScope

    settings = copy.deepcopy(settings)
    tests = list(dataset_nodes(cfg.test_dataloader.dataset))
    for node in dataset_nodes(settings):
        pipeline = node['pipeline'] if annotations else tests[0]['pipeline']
        kept = ('Load', 'Pack') if annotations else ('LoadImage', 'Pack')
        node['pipeline'] = [step for step in pipeline if str(step['type']).rpartition('.')[2].startswith(kept)]
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return _registry(cfg).DATASETS.build(settings)


def _registry(cfg) -> Any:
    importlib.import_module(f'{cfg.default_scope}.datasets')
    importlib.import_module(f'{cfg.default_scope}.evaluation')
    return importlib.import_module(f'{cfg.default_scope}.registry')


def sample_of(results: Mapping[str, np.ndarray], sample: Any) -> Any:
    """Put what ``Runtime`` returned for an image into its data sample, as the framework's model would.

    Args:
        results (Mapping): ``probabilities``, ``label_map``, or ``boxes``, ``scores``, ``labels`` and maybe ``masks``.
        sample: DataSample of mmpretrain, SegDataSample of mmseg or DetDataSample of mmdet.

    Returns:
        The same sample, with ``pred_score`` and ``pred_label``, ``pred_sem_seg``, or ``pred_instances``.
    """
    from mmengine.structures import InstanceData, PixelData

    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in results.items()}
    if 'probabilities' in tensors:
        scores = tensors['probabilities']
        return sample.set_pred_score(scores).set_pred_label(scores.argmax())
    if 'label_map' in tensors:
        sample.pred_sem_seg = PixelData(data=tensors['label_map'][None].long())
        return sample
    sample.pred_instances = InstanceData(bboxes=tensors.pop('boxes'), **tensors)
    return sample


def calibration_images(cfg, number: int) -> list[np.ndarray]:
    """Return images of a config's training data, (H, W, C), uint8, spread evenly over it.

    Raises:
        UserError: The config has no training data, or it is empty.
    """
    if not cfg.get('train_dataloader'):
        raise UserError(f'{cfg.filename} has no train_dataloader, so there are no images to calibrate on')
    dataset = images_of(cfg, cfg.train_dataloader.dataset, annotations=False)
    if not len(dataset):
        raise UserError(f'the dataset of train_dataloader in {cfg.filename} is empty: no images to calibrate on')
    indices = np.unique(np.linspace(0, len(dataset) - 1, number).astype(int))
    return [image_of(dataset[int(index)]) for index in indices]


class Evaluation:
    """The images of a config's validation or test, and the evaluator that judges what is predicted on them.

    Args:
        cfg (mmengine.Config): As ``engine.launch.prepare`` returns it, or read by ``load_config``.
        split (str): 'val' or 'test'. Defaults to 'test'.

    Raises:
        UserError: The config has no such images or no evaluator of them.
    """

    def __init__(self, cfg, split: str = 'test') -> None:
        from mmengine.evaluator import Evaluator
        from mmengine.registry import DefaultScope

        for part in (f'{split}_dataloader', f'{split}_evaluator'):
            if not cfg.get(part):
                raise UserError(f'{cfg.filename} has no {part}, so nothing judges the accuracy of a file')
        self.cfg = cfg
        self.dataset = images_of(cfg, cfg[f'{split}_dataloader'].dataset, annotations=True)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.evaluator = Evaluator(cfg[f'{split}_evaluator'])
        self.evaluator.dataset_meta = self.dataset.metainfo
        if not len(self.dataset):
            raise UserError(f'the dataset of {split}_dataloader in {cfg.filename} is empty')

    def check(self, about: Mapping[str, Any], path: Any) -> None:
        """Raise ``UserError`` where a file is for another task or for other classes than the config.

        Args:
            about (Mapping): What the file says about itself.
            path: Of the file, for messages.
        """
        task, classes = task_of(self.cfg), tuple(map(str, self.dataset.metainfo.get('classes') or ()))
        if about['task'] != task:
            raise UserError(f'{path} is for {about["task"]}, the config {self.cfg.filename} for {task}')
        given = tuple(about['classes'])
        if classes and given != classes:
            first = next((pair for pair in zip(given, classes) if pair[0] != pair[1]), None)
            what = f'{first[0]!r} where the config has {first[1]!r}' if first else f'{len(given)} of {len(classes)}'
            raise UserError(f'the classes of {path} and of the data of {self.cfg.filename} differ: {what}')

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, index: int) -> np.ndarray:
        """Return an image as it is read, (H, W, C), uint8."""
        return image_of(self.dataset[index])

    def score(self, model: Model, progress: bool = False) -> dict[str, float]:
        """Return the metrics of a model.

        Args:
            model (Model): ``Runtime``, or anything else that is called with an image.
            progress (bool): Show a progress bar on standard error. Defaults to False.
        """
        from mmengine.utils import track_iter_progress

        indices = range(len(self))
        for index in track_iter_progress(indices, file=sys.stderr) if progress else indices:
            item = self.dataset[index]
            try:
                results = model(image_of(item))
            except RuntimeProblem as error:
                place = item['data_samples'].metainfo.get('img_path', f'image {index}')
                raise UserError(f'{place}: {error}') from error
            sample = sample_of(results, item['data_samples'])
            self.evaluator.process(data_samples=[sample], data_batch=dict(inputs=[item['inputs']]))
        with quiet_log('ERROR'), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
            return self.evaluator.evaluate(len(self))


def image_of(item: Mapping[str, Any]) -> np.ndarray:
    """Return the image of an item of ``images_of``, (H, W, C), uint8."""
    return np.ascontiguousarray(item['inputs'].numpy().transpose(1, 2, 0))
