"""What an exported file says about itself, for whoever runs it."""

import math
from typing import Any

import torch

from ..utils.config import nodes
from ..utils.errors import InvalidValue
from .runtime import CV2, PILLOW

TASKS = dict(mmpretrain='classification', mmdet='detection', mmseg='semantic segmentation')


def task_of(cfg: Any) -> str:
    """Return the task of a config's model: 'classification', 'detection', 'instance segmentation', ..."""
    masks = any(node.get('mask_head') for node in nodes(cfg.model))
    return 'instance segmentation' if masks else TASKS[cfg.default_scope]


def _resizing(pipeline: list, raw: bool) -> list[dict]:
    """Return the steps of a test pipeline between reading and packing, which resize the image, for ``runtime.py``."""
    steps = []
    for step in pipeline:
        kind = step['type'].rpartition('.')[2]
        how = dict(interpolation=step.get('interpolation', 'bilinear'), backend=step.get('backend', 'cv2'))
        possible = how['interpolation'] in (PILLOW if how['backend'] == 'pillow' else CV2)
        described: dict | None = None
        if kind == 'Resize' and step.get('scale') and possible:
            scale = step['scale'] if isinstance(step['scale'], (tuple, list)) else (step['scale'],) * 2
            keep = step.get('keep_ratio', False)
            described = dict(step='resize', width=scale[0], height=scale[1], keep_ratio=keep, **how)
        elif kind == 'ResizeEdge' and possible:
            described = dict(step='resize_edge', edge=step.get('edge', 'short'), size=step['scale'], **how)
        elif kind == 'CenterCrop' and not step.get('auto_pad'):
            size = step['crop_size']
            width, height = size if isinstance(size, (tuple, list)) else (size, size)
            described = dict(step='center_crop', height=height, width=width)
        elif kind.startswith(('Load', 'Pack')):
            continue
        if described is None and not raw:
            raise InvalidValue(f'{dict(step)} of the test pipeline is not a step that a file can describe')
        steps.append(described or dict(step=kind))
    return steps


def _anchors(model: Any) -> dict[str, list]:
    """Return the strides of a detector's levels, in pixels, and the anchors around the origin of each level."""
    head = getattr(model, 'rpn_head', getattr(model, 'bbox_head', None))
    generator = getattr(head, 'prior_generator', None)
    if generator is None:
        return {}
    anchors = [level.tolist() for level in getattr(generator, 'base_anchors', [])]
    return dict(strides=[list(stride) for stride in generator.strides], anchors=anchors)


def describe(cfg: Any, model: Any, config: str, raw: bool = False) -> dict[str, Any]:
    """Return what a file says about itself, as JSON.

    Args:
        cfg (mmengine.Config): Of the model.
        model (nn.Module): The framework's.
        config (str): The config's name.
        raw (bool): The file takes normalized images and does not decode. Defaults to False.

    Returns:
        dict: ``task``, ``config``, ``raw``, ``classes``, ``palette``, ``mean``, ``std`` (in the order that the model
        wants, of images from 0 to 255), ``bgr_to_rgb``, ``channels``, ``pad_divisor``, ``step`` (of sizes that are not
        padded anywhere), ``fixed_size`` and ``min_size`` (height and width, in pixels), ``resize``, the steps before,
        and a detector's ``strides`` and ``anchors``.

    Raises:
        ValueError: The test pipeline has a step, or the preprocessor a padding, that a file cannot do; not where it is
            raw.
    """
    preprocessor, backbone = model.data_preprocessor, model.backbone
    padding: dict[str, Any] = getattr(preprocessor, 'test_cfg', None) or {}  # of mmseg
    divisor: int = padding.get('size_divisor') or getattr(preprocessor, 'pad_size_divisor', None) or 1
    if padding.get('size') and not raw:
        raise InvalidValue(f'a file cannot pad to the size of data_preprocessor.test_cfg={dict(padding)}')
    value = getattr(preprocessor, 'pad_value', getattr(preprocessor, 'pad_val', 0))
    if divisor > 1 and torch.as_tensor(value).any() and not raw:
        raise InvalidValue(f'a file pads with 0, not with the {value} of data_preprocessor')
    steps = backbone.size_step or backbone.img_size
    channels = backbone.in_channels
    mean, std = ([float(n) for n in getattr(preprocessor, name, torch.full((channels,), fill)).flatten()]
                 for name, fill in (('mean', 0.0), ('std', 1.0)))  # fmt: skip
    swap = bool(getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'channel_conversion', False)))
    swap = swap or bool(getattr(preprocessor, 'to_rgb', False))
    meta, task = getattr(model, 'dataset_meta', None) or {}, task_of(cfg)
    masks = task == 'instance segmentation'
    return dict(
        task=task,
        config=config,
        raw=raw,
        classes=list(meta.get('classes') or []),
        palette=[list(color) for color in meta.get('palette') or []],
        category_ids=list(meta.get('category_ids') or []),
        channels=channels,
        bgr_to_rgb=swap,
        mean=mean,
        std=std,
        pad_divisor=divisor,
        step=[math.lcm(divisor, step) for step in steps],
        fixed_size=list(backbone.img_size) if backbone.size_step is None else None,
        min_size=[backbone.min_size] * 2,
        resize=_resizing(cfg.test_dataloader.dataset.pipeline, raw),
        **_anchors(model),
        **(dict(mask_threshold=model.roi_head.test_cfg.mask_thr_binary) if masks else {}),
    )
