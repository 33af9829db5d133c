"""The names that other libraries give to the same tensors: one pure function for each, dict in and dict out.

The functions take the backbone's tensors, without a prefix, and leave what they do not know as it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor


class Dialect(NamedTuple):
    """One library's names.

    Attributes:
        name (str): What messages call it.
        mark (str): A regular expression that some key matches in this dialect and in no other.
        convert (Callable): Tensors with this dialect's names -> tensors with ours.
    """

    name: str
    mark: str
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        return any(re.search(self.mark, key) for key in tensors)


def _rename(tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    """Apply every rule (regular expression -> replacement) to every key."""
    renamed = {}
    for key, value in tensors.items():
        for pattern, replacement in rules.items():
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def resmlp_from_deit(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """ResMLP of https://github.com/facebookresearch/deit -> timm's names, and affines of shape (1, 1, C)."""
    rules = {
        r'^patch_embed\.': 'stem.',
        r'\.attn\.': '.linear_tokens.',
        r'\.mlp\.': '.mlp_channels.',
        r'\.gamma_([12])$': r'.ls\1',
    }
    renamed = _rename(tensors, rules)
    return {k: v.reshape(1, 1, -1) if k.endswith(('.alpha', '.beta')) else v for k, v in renamed.items()}


def repmlp_from_mmpretrain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """RepMLPNet of https://github.com/open-mmlab/mmpretrain -> the original's names."""
    rules = {
        r'^patch_embed\.projection\.': 'conv_embedding.conv.',
        r'^patch_embed\.norm\.': 'conv_embedding.bn.',
        r'^downsample_layers\.': 'embeds.',
        r'^final_norm\.': 'head_norm.',
        r'\.gp\.conv([12])\.conv\.': r'.gp.fc\1.',
        r'^(stages\.\d+\.\d+)\.norm([12])\.': r'\1.prebn\2.',
    }
    return _rename(tensors, rules)


RESMLP = (Dialect('deit', r'^blocks\.\d+\.gamma_1$', resmlp_from_deit),)
REPMLP = (Dialect('mmpretrain', r'^patch_embed\.projection\.', repmlp_from_mmpretrain),)
