"""Classifiers, segmentors and detectors of OpenMMLab as functions of tensors, up to what a user wants to see.

OpenMMLab decodes predictions image by image, with shapes that depend on the content. Here the whole batch is
decoded at once with constant shapes, so that it can be exported; results are the same.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ..utils.errors import InvalidValue


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float) -> Tensor:
    """Non-maximum suppression of a batch, each class on its own: ONNX's NonMaxSuppression.

    Images and classes are moved apart, in float64 so that no box changes.

    Args:
        boxes (Tensor): (B, K, 4), as x1, y1, x2, y2.
        scores (Tensor): (B, C, K).
        iou_threshold (float): A box that overlaps a better one of its class by more is removed.
        score_threshold (float): Only scores above it are considered.

    Returns:
        Tensor: (B, C, K), bool: what is kept.
    """
    group, box = (scores > score_threshold).flatten(0, 1).nonzero().unbind(1)
    moved = boxes[group // scores.shape[1], box].double()
    distance = 2 * (boxes.abs().max() + 1).double()
    values = scores.flatten(0, 1)[group, box].double()
    kept = torchvision.ops.nms(moved + (group * distance)[:, None], values, iou_threshold)
    keep = torch.zeros_like(scores, dtype=torch.bool).flatten(0, 1)
    keep = keep.index_put((group[kept], box[kept]), torch.ones_like(kept, dtype=torch.bool))
    return keep.view_as(scores)


@functools.cache
def nms_operator() -> Any:
    """Return ``nms`` as one operator, ``mlp_backbones::nms``, which the ONNX exporter replaces by ONNX's; torch 2.4."""
    operator = torch.library.custom_op('mlp_backbones::nms', nms, mutates_args=())
    operator.register_fake(lambda boxes, scores, iou, score: torch.empty_like(scores, dtype=torch.bool))
    return operator


def best(boxes: Tensor, scores: Tensor, labels: Tensor, keep: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``most`` best of the boxes that are kept, best first; what is missing has score 0, label -1 and no area.

    Shape:
        - Input: (N, K, 4), (N, K), (N, K), (N, K) bool.
        - Output: (N, most, 4), (N, most), (N, most).
    """
    scores = torch.where(keep, scores, torch.full_like(scores, -1.0))
    scores, index = F.pad(scores, (0, most), value=-1.0).topk(most)
    index = index.clamp(max=boxes.shape[1] - 1)
    found = scores >= 0
    boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4)) * found[..., None]
    labels = torch.where(found, labels.gather(1, index), torch.full_like(index, -1))
    return boxes, scores * found, labels


def clip(boxes: Tensor, size: Tensor) -> Tensor:
    """Keep boxes (..., 4) within an image of ``size`` (2,), height and width in pixels."""
    limits = size.flip(0).repeat(2).to(boxes)
    return torch.minimum(boxes.clamp(min=0), limits)


def candidates_of_level(
    head: Any, scores: Tensor, deltas: Tensor, factors: Tensor | None, priors: Tensor, size: Tensor, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes of one level with the best scores, as mmdet's ``BaseDenseHead`` chooses and decodes them.

    Args:
        head: An mmdet dense head.
        scores (Tensor): (N, A * C, h, w), before the sigmoid.
        deltas (Tensor): (N, A * D, h, w).
        factors (Tensor, optional): (N, A, h, w), centerness before the sigmoid.
        priors (Tensor): (h * w * A, 4), or (h * w, 2) for points.
        size (Tensor): (2,), height and width of the image.
        most (int): Candidates, each a pair of box and class.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Boxes (N, most, 4), scores (N, most), and labels (N, most).
    """
    batch, classes = scores.shape[0], head.cls_out_channels
    scores = scores.permute(0, 2, 3, 1).reshape(batch, -1, classes)
    scores = scores.sigmoid() if head.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
    classes = scores.shape[-1]
    deltas = deltas.permute(0, 2, 3, 1).reshape(batch, -1, head.bbox_coder.encode_size)
    values, index = F.pad(scores.flatten(1), (0, most), value=-1.0).topk(most)
    place = (index // classes).clamp(max=scores.shape[1] - 1)
    labels = index % classes
    deltas = deltas.gather(1, place[..., None].expand(-1, -1, deltas.shape[-1]))
    chosen = priors[place.flatten()]
    boxes = head.bbox_coder.decode(chosen, deltas.flatten(0, 1)).view(batch, most, 4)
    if factors is not None:
        factors = factors.permute(0, 2, 3, 1).reshape(batch, -1).sigmoid().gather(1, place)
        # mmdet's threshold is on the class score alone, before it is multiplied.
        values = torch.where(values > head.test_cfg.score_thr, values * factors, torch.full_like(values, -1.0))
    return clip(boxes, size), values, labels


class Detector(nn.Module):
    """A detector: images to boxes, scores and labels, and masks where it segments instances.

    Args:
        model (nn.Module): Of mmdet: any one-stage detector whose ``bbox_head`` is decoded by ``BaseDenseHead``, such as
            RetinaNet, FCOS and ATSS, or Faster and Mask R-CNN.

    Raises:
        ValueError: Another head or kind of suppression.

    Shape:
        - Input: images (N, C, H, W), normalized and padded, and ``size`` (2,), their height and width before padding.
        - Output: boxes (N, K, 4) as x1, y1, x2, y2 in pixels, scores (N, K), labels (N, K), best first, and masks
          (N, K, M, M), probabilities over each box. Where fewer than K were found the rest has score 0 and label -1.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

        self.model = model
        self.suppress: Any = nms
        head: Any = getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None)
        self.two_stages = hasattr(model, 'roi_head')
        own = {'predict_by_feat', '_bbox_post_process', '_predict_by_feat_single'}
        bases = [c for c in type(head).__mro__ if c.__module__.startswith('mmdet') and own & vars(c).keys()]
        expected = 2 if self.two_stages else 1
        if not isinstance(head, BaseDenseHead) or len(bases) > expected or bases[-1] is not BaseDenseHead:
            raise InvalidValue(
                f'{type(head).__name__} decodes predictions in its own way, which cannot be exported; possible are the '
                'heads of RetinaNet, FCOS, ATSS and others decoded by BaseDenseHead, Faster R-CNN and Mask R-CNN; or '
                'export the raw outputs'
            )
        configs = [head.test_cfg]
        if self.two_stages:
            _check_two_stages(model.roi_head)
            configs.append(model.roi_head.test_cfg)
        for config in configs:
            if config.nms.get('type', 'nms') != 'nms' or config.nms.get('class_agnostic'):
                raise InvalidValue(f'suppression must be of type nms, class by class, got {dict(config.nms)}')
            if config.nms.get('max_num', -1) > 0 or config.nms.get('score_threshold', 0) > 0:
                raise InvalidValue(f'a file knows no max_num or score_threshold of suppression, got {dict(config.nms)}')
            if config.get('max_per_img', -1) <= 0:
                raise InvalidValue(f'test_cfg.max_per_img must be positive in a file, got {dict(config)}')
        if head.test_cfg.get('nms_pre', -1) <= 0:
            raise InvalidValue(f'test_cfg.nms_pre must be positive in a file, got {dict(head.test_cfg)}')
        if not self.two_stages and head.test_cfg.get('min_bbox_size', -1) > 0:
            raise InvalidValue('test_cfg.min_bbox_size is of boxes in the original image, which a file does not know')

    @property
    def names(self) -> tuple[str, ...]:
        masks = self.two_stages and self.model.roi_head.with_mask
        return ('boxes', 'scores', 'labels', 'masks') if masks else ('boxes', 'scores', 'labels')

    def forward(self, x: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        maps = self.model.extract_feat(x)
        if not self.two_stages:
            return self.dense(self.model.bbox_head, maps, size)
        proposals, scores, _ = self.dense(self.model.rpn_head, maps, size)
        return self.regions(maps, proposals, scores > 0, size)

    def dense(self, head: Any, maps: Sequence[Tensor], size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What a dense head finds: boxes (N, K, 4), scores (N, K) and labels (N, K), for an RPN its levels."""
        config, regions = head.test_cfg, head is getattr(self.model, 'rpn_head', None)
        outputs = head(maps)
        factors = outputs[2] if len(outputs) > 2 else [None] * len(outputs[0])
        sizes = [level.shape[-2:] for level in outputs[0]]
        priors = head.prior_generator.grid_priors(sizes, device=maps[0].device)
        found = [
            candidates_of_level(head, *level, size, config.nms_pre)
            for level in zip(outputs[0], outputs[1], factors, priors)
        ]
        boxes, scores = (torch.cat([level[part] for level in found], 1) for part in (0, 1))
        levels = [torch.full_like(level[2], number) for number, level in enumerate(found)]
        labels = torch.cat(levels if regions else [level[2] for level in found], 1)
        small = config.get('min_bbox_size', -1)
        if small >= 0:
            sides = boxes[..., 2:] - boxes[..., :2]
            scores = torch.where((sides > small).all(-1), scores, torch.full_like(scores, -1.0))
        classes = len(found) if regions else head.num_classes
        one_class = torch.arange(classes, device=labels.device)[None, :, None] == labels[:, None]
        by_class = torch.where(one_class, scores[:, None], torch.full_like(scores[:, None], -1.0))
        # A score that centerness has lowered stays; the threshold was on what the class score alone was.
        threshold = 0.0 if regions or factors[0] is not None else config.score_thr
        keep = self.suppress(boxes, by_class, config.nms.iou_threshold, threshold).any(1)
        return best(boxes, scores, labels, keep, config.max_per_img)

    def regions(self, maps: Sequence[Tensor], proposals: Tensor, valid: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """The second stage, for proposals (N, P, 4) of which some are valid (N, P)."""
        head, config = self.model.roi_head, self.model.roi_head.test_cfg
        batch, number = proposals.shape[:2]
        classes = head.bbox_head.num_classes
        rois = as_rois(proposals)
        scores, deltas = head.bbox_head(align(head.bbox_roi_extractor, maps, rois))
        scores = scores.softmax(-1)[:, :classes].view(batch, number, classes)
        boxes = rois[:, 1:].repeat_interleave(deltas.shape[1] // 4, 0)
        boxes = clip(head.bbox_head.bbox_coder.decode(boxes, deltas.view(-1, 4)), size)
        boxes = boxes.view(batch, number, -1, 4).expand(-1, -1, classes, -1).transpose(1, 2)  # (N, C, P, 4)
        scores = torch.where(valid[..., None], scores, torch.full_like(scores, -1.0)).transpose(1, 2)
        keep = self.suppress(
            boxes.flatten(0, 1), scores.flatten(0, 1)[:, None], config.nms.iou_threshold, config.score_thr
        )
        labels = torch.arange(classes, device=scores.device)[None, :, None].expand_as(scores)
        boxes, scores, labels = best(
            boxes.flatten(1, 2), scores.flatten(1), labels.flatten(1), keep.reshape(batch, -1), config.max_per_img
        )
        if not head.with_mask:
            return boxes, scores, labels
        logits = head.mask_head(align(head.mask_roi_extractor, maps, as_rois(boxes)))
        if not head.mask_head.class_agnostic:
            index = labels.clamp(min=0).view(-1, 1, 1, 1).expand(-1, -1, *logits.shape[2:])
            logits = logits.gather(1, index)
        return boxes, scores, labels, logits.sigmoid().view(batch, -1, *logits.shape[2:])


def _check_two_stages(head: Any) -> None:
    """Refuse second stages of several steps, or with other parts than Faster and Mask R-CNN's."""
    kind = type(head).__name__
    if kind != 'StandardRoIHead' or head.bbox_head.custom_activation:
        raise InvalidValue(f'{kind} cannot be exported: there is the StandardRoIHead of Faster and Mask R-CNN')
    for part in ('bbox_roi_extractor', 'mask_roi_extractor') if head.with_mask else ('bbox_roi_extractor',):
        extractor = getattr(head, part)
        if type(extractor).__name__ != 'SingleRoIExtractor':
            raise InvalidValue(f'{type(extractor).__name__} cannot be exported: there is SingleRoIExtractor')


def as_rois(boxes: Tensor) -> Tensor:
    """Boxes (N, K, 4) as (N * K, 5), the number of the image first."""
    number = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
    return torch.cat([number[:, None, None].expand(-1, boxes.shape[1], 1), boxes], -1).flatten(0, 1)


def align(extractor: Any, maps: Sequence[Tensor], rois: Tensor) -> Tensor:
    """What mmdet's ``SingleRoIExtractor`` computes, with torchvision's RoIAlign, which is ONNX's.

    Args:
        extractor: The extractor.
        maps (Sequence[Tensor]): (N, C, h, w) of each level.
        rois (Tensor): (R, 5), the number of the image first.

    Returns:
        Tensor: (R, C, size, size).
    """
    levels = extractor.map_roi_levels(rois, extractor.num_inputs)
    size = extractor.roi_layers[0].output_size
    found = maps[0].new_zeros(rois.shape[0], maps[0].shape[1], *size)
    for number, (layer, level) in enumerate(zip(extractor.roi_layers, maps)):
        index = (levels == number).nonzero()[:, 0]
        aligned = torchvision.ops.roi_align(
            level, rois[index], layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
        )
        found = found.index_copy(0, index, aligned)
    return found


class Classifier(nn.Module):
    """A classifier: images (N, C, H, W) to probabilities (N, classes)."""

    names = ('probabilities',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if not hasattr(model.head, 'loss_module') or type(model.head).__name__.startswith('MultiLabel'):
            raise InvalidValue(f'{type(model.head).__name__} cannot be exported: there is LinearClsHead')

    def forward(self, x: Tensor, size: Tensor) -> tuple[Tensor]:
        return (self.model(x, mode='tensor').softmax(-1),)


class Segmentor(nn.Module):
    """A segmentor: images (N, C, H, W) to scores (N, classes, h, w) at the stride of its head.

    ``LabelMap`` makes them into a map of labels at the image's size.
    """

    names = ('scores',)

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if model.test_cfg.get('mode') != 'whole':
            raise InvalidValue(f"a segmentor is exported with model.test_cfg.mode='whole', got {dict(model.test_cfg)}")
        if model.decode_head.num_classes > 256:
            raise InvalidValue(f'a label map has eight bits, too few for {model.decode_head.num_classes} classes')

    def forward(self, x: Tensor, size: Tensor) -> tuple[Tensor]:
        return (self.model(x, mode='tensor'),)
