"""Parameters and multiply-adds of the frameworks' models, module by module."""

from typing import Any

import torch
from torch import Tensor, nn

from ..deploy.export import TensorModel, tensors_of
from ..utils.config import nodes


def input_size(cfg) -> tuple[int, int]:
    """Return height and width, in pixels, of the images that a config tests with: its crop, else what it resizes to.

    Detection and segmentation resize to fit into (longer, shorter); an image of just that shape is meant, padded as the
    model pads it. Where images are taken as they are, it is the size that they are trained with, else 224.
    """
    pipelines = [(cfg.get(f'{split}_dataloader') or {}).get('dataset') for split in ('test', 'train')]
    preprocessor = cfg.model.get('data_preprocessor') or {}
    test, train = (list(nodes(pipeline)) for pipeline in pipelines)
    places = [test] if cfg.get('default_scope') == 'mmdet' else []  # which trains on crops, and tests on whole images
    places.append([*test, preprocessor, *train])
    sizes = (s[key] for steps in places for key in ('crop_size', 'scale', 'size') for s in steps if s.get(key))
    size = next(sizes, 224)
    size = (size, size) if isinstance(size, int) else size
    divisor = preprocessor.get('pad_size_divisor', 1)
    return -(-min(size) // divisor) * divisor, -(-max(size) // divisor) * divisor


class _Outputs(nn.Module):
    """A model as a function from an image to the outputs of its heads, the second stage's too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if not hasattr(self.model, 'roi_head'):
            return TensorModel(self.model)(x)
        from mmengine.structures import InstanceData

        maps = self.model.extract_feat(x)
        regions = x.new_tensor([0, 0, *x.shape[:1:-1]]).repeat(self.model.test_cfg.rpn.max_per_img, 1)
        second = self.model.roi_head.forward(maps, [InstanceData(bboxes=regions)])
        return (*tensors_of(self.model.rpn_head(maps)), *tensors_of(second))


def count(model: nn.Module, shape: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Count what every module of a model holds and computes for one image.

    Args:
        model (nn.Module): A classifier, a segmentor or a detector, on the CPU.
        shape (tuple[int, int]): Height and width of the image, in pixels.

    Returns:
        dict[str, tuple[int, int]]: Name -> parameters and multiply-adds, in the order of the modules; '' is the model.
        Only products of matrices, convolutions and norms count, as in fvcore; modules without either are left out.
    """
    from mmengine.analysis import FlopAnalyzer, parameter_count

    model.eval()
    backbone: Any = model.get_submodule('backbone')
    channels = backbone.in_channels
    analyzer = FlopAnalyzer(_Outputs(model), torch.zeros(1, channels, *shape))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings('none')
    with torch.no_grad():
        macs = analyzer.by_module()
    parameters = parameter_count(model)
    counted = {name: (parameters[name], int(macs[f'model.{name}'.rstrip('.')])) for name, _ in model.named_modules()}
    return {name: pair for name, pair in counted.items() if any(pair) or not name}
