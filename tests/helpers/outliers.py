"""Models whose activations have outliers, and that compute the same: hard cases for quantization."""

import torch

from mlp_backbones.models.backbones.convmlp import ConvMLPBlock
from mlp_backbones.models.backbones.gmlp import GMLPBlock
from mlp_backbones.models.backbones.repmlp import RepMLPUnit
from mlp_backbones.models.backbones.resmlp import ResMLPBlock


def add_outliers(model, factor=100.0, channels=3):
    """Multiply the gains of some channels of every norm, and divide the weights that read them, in place.

    Args:
        model: A framework's model, in training form.
        factor (float): How much larger these activations become. A power of two changes no output at all.
        channels (int): Of each norm.

    Returns:
        The model.
    """
    generator = torch.Generator().manual_seed(0)
    for norm, weight, axis in _readers(model):
        gains = [norm.alpha, norm.beta] if hasattr(norm, 'alpha') else [norm.weight, norm.bias]
        chosen = torch.randperm(gains[0].numel(), generator=generator)[:channels]
        with torch.no_grad():
            for gain in gains:
                gain[..., chosen] *= factor
            weight.transpose(0, axis)[chosen] /= factor
    return model


def _readers(model):
    """(norm, weight of the layer that reads its output and nothing else does, the axis of its inputs)."""
    for module in model.modules():
        if isinstance(module, ConvMLPBlock):
            yield module.norm1, module.channel_mlp1.fc1.weight, 1
            yield module.connect_norm, module.connect.weight, 0
            yield module.norm2, module.channel_mlp2.fc1.weight, 1
        elif isinstance(module, ResMLPBlock):
            yield module.norm2, module.mlp_channels.fc1.weight, 1
        elif isinstance(module, GMLPBlock):
            yield module.norm, module.mlp_channels.fc1.weight, 1
        elif isinstance(module, RepMLPUnit):
            yield module.prebn2, module.ffn_block.ffn_fc1.conv.weight, 1
    final = getattr(model.backbone, 'norm', None) or getattr(model.backbone, 'head_norm', None)
    if final is not None and hasattr(model, 'head'):
        yield final, model.head.fc.weight, 1
