"""Images in, predictions out: the frameworks' inferencers over models that are given by name or by config.

Images are arrays of (H, W, C), uint8, as cv2 reads them: of three channels BGR.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.registry import DefaultScope

from ..checkpoints import read_checkpoint
from ..deploy.description import task_of
from ..deploy.runtime import Model
from ..engine.config import find_config, load_config
from ..utils.cli import quiet_log
from ..utils.errors import InvalidValue, UserError
from .classes import describe_classes
from .zoo import build_model, fill_model, get_entry, list_models, published_weights

INFERENCERS = dict(mmpretrain='ImageClassificationInferencer', mmdet='DetInferencer', mmseg='MMSegInferencer')


def find_weights(model: str, entry: Mapping[str, Any]) -> str:
    """Return the link to a model's weights; raise ``UserError`` for a config, and ValueError without a direct link."""
    if entry:
        return published_weights(entry, '--weights PATH')
    names = [n for n in list_models() if Path(get_entry(n)['Config']).name == Path(model).name]
    raise UserError(
        f'{model} is a config, which has no weights: give them with --weights FILE_OR_URL'
        + (f', or name the published model instead: --model {names[0]}' if names else '')
    )


def device_of(name: str | None) -> torch.device:
    """Return a device by its name, or raise UserError; None is the GPU where there is one."""
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f'the device {name!r} cannot be used: {str(error).splitlines()[0]}') from error


def load_model(cfg, weights: str | Path, whole: bool = True) -> tuple[Any, dict[str, Any]]:
    """Return the model of a config with these weights, 'none' for random ones, and what is known of its classes.

    Raises:
        CheckpointError: The weights do not fill the model, or, unless ``whole``, its backbone.
    """
    content = {} if weights == 'none' else read_checkpoint(weights)
    model = build_model(cfg)
    if weights != 'none':
        fill_model(model, content, weights, strict=whole)
    return model, describe_classes(cfg, model, content)


class Predictor(Model):
    """A framework's inferencer with one of our models in it, used as ``deploy.runtime.Runtime`` is. Use ``build``.

    Args:
        cfg (mmengine.Config): The model's.
        model (torch.nn.Module): Filled, in eval mode.
        about (Mapping[str, Any]): Of its classes, in its order: ``classes``, their names; ``palette``, their colors,
            RGB from 0 to 255; ``category_ids``, what annotations call them.

    Attributes:
        about (dict): As given, with ``task`` and ``channels``.
        inferencer (Any): mmpretrain's ImageClassificationInferencer, mmdet's DetInferencer or mmseg's MMSegInferencer.
        model (torch.nn.Module): In eval mode.
        mixed (bool): Whether images of several sizes may be in one batch.
    """

    model: Any

    def __init__(self, cfg, model: torch.nn.Module, about: Mapping[str, Any]) -> None:
        self.cfg, self.model = cfg, model
        self.about = dict(about, task=task_of(cfg), channels=self.model.backbone.in_channels)
        self.model.cfg = self.model._config = cfg
        self.model.dataset_meta = dict(classes=about['classes'], palette=about['palette'])
        # The frameworks warn of registries that they do not need.
        with quiet_log('ERROR'), DefaultScope.overwrite_default_scope(cfg.default_scope):
            base = getattr(importlib.import_module(f'{cfg.default_scope}.apis'), INFERENCERS[cfg.default_scope])
            self.inferencer = base(model) if cfg.default_scope == 'mmpretrain' else _around(base, cfg, model)
        steps = cfg.test_dataloader.dataset.pipeline
        cropped = cfg.default_scope == 'mmpretrain' and any('Crop' in str(step['type']) for step in steps)
        self.mixed = cropped or cfg.default_scope == 'mmdet'  # which pads

    @staticmethod
    def build(
        name: str | Path, weights: str | Path | None = None, device: str | None = None, whole: bool = True
    ) -> 'Predictor':
        """Build the predictor of a model.

        Args:
            name (str | Path): A name of the zoo, or the path of a config.
            weights (str | Path, optional): A file or URL, in any dialect, or 'none' for random ones. Defaults to those
                that the zoo names.
            device (str, optional): Defaults to the GPU where there is one.
            whole (bool): Refuse weights that do not fill the whole model. Defaults to True; else the backbone must be.

        Returns:
            Predictor: Of the model's framework.

        Raises:
            UserError: The model, its weights, or the device does not exist.
            CheckpointError: The weights do not fill the model.
        """
        target = device_of(device)
        path, entry = find_config(name)
        cfg = load_config(path)
        model, about = load_model(cfg, weights or find_weights(str(name), entry), whole)
        return Predictor(cfg, model.to(target), about)

    def predict(self, images: Sequence[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Return the results of each image of a batch, as ``Runtime`` does; they have one size, unless ``mixed``."""
        return [results_of(sample) for sample in self.inferencer.forward(self._data(images))]

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Return the results of one image."""
        return self.predict([image])[0]

    def _check(self, image: Any) -> None:
        channels = self.about['channels']
        if getattr(image, 'shape', ())[2:] != (channels,) or not np.issubdtype(image.dtype, np.integer):
            got = f'{image.dtype} {image.shape}' if isinstance(image, np.ndarray) else type(image).__name__
            raise InvalidValue(f'an image must be an array of integers, (height, width, {channels}), got {got}')

    def _data(self, images: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return a batch, out of the config's test pipeline."""
        for image in images:
            self._check(image)
        (data,) = self.inferencer.preprocess(list(images), batch_size=len(images))
        return data[1] if self.cfg.default_scope == 'mmdet' else data  # behind the images

    def inputs(self, image: np.ndarray, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Return an image as the model gets it.

        Args:
            image (np.ndarray): (H, W, C).
            size (tuple[int, int], optional): Height and width in pixels to resize it to. Defaults to what the config's
                test pipeline does.

        Returns:
            torch.Tensor: (1, C, H, W), normalized, on the model's device.
        """
        import cv2

        if size is None:
            return self.model.data_preprocessor(self._data([image]))['inputs']
        self._check(image)
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, -1)
        return self.model.data_preprocessor(dict(inputs=[torch.from_numpy(image).permute(2, 0, 1)]))['inputs']

    def seen(self, inputs: torch.Tensor) -> np.ndarray:
        """Return the image that ``inputs`` came from, of many channels the first three, as (H, W, 3), RGB, uint8."""
        preprocessor = self.model.data_preprocessor
        settings = self.cfg.model.get('data_preprocessor') or self.cfg.get('data_preprocessor') or {}
        pixels = (inputs[:1] * preprocessor.std + preprocessor.mean)[0].permute(1, 2, 0)
        image = pixels.clamp(0, 255).round().byte().cpu().numpy()
        image = image[..., :3] if image.shape[2] > 2 else image[..., :1].repeat(3, 2)
        return image if settings.get('bgr_to_rgb') or settings.get('to_rgb') else image[..., ::-1]


def _around(base: Any, cfg, model: torch.nn.Module):
    """Return a framework's inferencer around a model that is filled already, with the class names that belong to it."""

    class Inferencer(base):
        def _init_model(self, *args, **kwargs):
            return model

    return Inferencer(cfg, device=str(next(model.parameters()).device))


def results_of(sample: Any) -> dict[str, np.ndarray]:
    """Return what is predicted in a framework's data sample, as ``Runtime`` returns it."""
    if 'pred_score' in sample:
        return dict(probabilities=sample.pred_score.cpu().numpy())
    if 'pred_sem_seg' in sample:
        return dict(label_map=sample.pred_sem_seg.data[0].cpu().numpy().astype(np.uint8))
    found = sample.pred_instances.cpu().numpy()
    masks = dict(masks=found.masks) if 'masks' in found else {}
    return dict(boxes=found.bboxes, scores=found.scores, labels=found.labels, **masks)
