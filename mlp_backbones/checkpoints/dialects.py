"""The names that other libraries give to the same tensors: one pure function for each, dict in and dict out.

Our own names are those of the original releases: SHI-Labs for ConvMLP, timm for ResMLP and gMLP, DingXiaoH for RepMLP.
The functions take a backbone's or a classifier's tensors, without a prefix, and leave what they do not know as it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor


class Dialect(NamedTuple):
    """One library's names.

    Attributes:
        name (str): What messages call it.
        mark (str): A regular expression that some key matches in this dialect and in no other of the family.
        convert (Callable): Tensors with this dialect's names -> tensors with ours.
    """

    name: str
    mark: str
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]

    def recognises(self, tensors: Mapping[str, Tensor]) -> bool:
        return any(re.search(self.mark, key) for key in tensors)


class Family(NamedTuple):
    """The names that checkpoints of one family come with.

    Attributes:
        name (str): The class that takes them.
        mark (str): A regular expression that some key of the backbone matches, in any dialect, and in no other family.
        native (str): The release whose names are ours.
        dialects (tuple[Dialect, ...]): The other names.
    """

    name: str
    mark: str
    native: str
    dialects: tuple[Dialect, ...] = ()

    def translate(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
        """Return tensors under our names, and whose names they had."""
        for dialect in self.dialects:
            if dialect.recognises(tensors):
                return dialect.convert(tensors), dialect.name
        return dict(tensors), self.native


# An original classifier's head -> that of mmpretrain's classifiers.
HEAD = {'head.weight': 'head.fc.weight', 'head.bias': 'head.fc.bias'}


def _rename(tensors: Mapping[str, Tensor], rules: Mapping[str, str]) -> dict[str, Tensor]:
    """Apply every rule (regular expression -> replacement) to every key."""
    renamed = {}
    for key, value in tensors.items():
        for pattern, replacement in rules.items():
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def from_paddle(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Any family of https://github.com/BR-IDL/PaddleViT: linear weights are transposed, BatchNorm has other names."""
    rules = {
        r'\._mean$': '.running_mean',
        r'\._variance$': '.running_var',
        r'^patch_embed\.patch_embed\.': 'stem.proj.',
        r'^mixer_layers\.': 'blocks.',
    }
    renamed = _rename(tensors, rules)
    # Every weight of two dimensions belongs to a linear layer.
    return {k: v.T.contiguous() if k.endswith('.weight') and v.ndim == 2 else v for k, v in renamed.items()}


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


CONVMLP = Family(
    'ConvMLP',
    mark=r'^tokenizer\.block\.',
    native='SHI-Labs',
    dialects=(Dialect('PaddleViT', r'^tokenizer\..*\._mean$', from_paddle),),
)
RESMLP = Family(
    'ResMLP',
    mark=r'\.linear_tokens\.|^blocks\.\d+\.attn\.weight$',
    native='timm',
    dialects=(
        Dialect('facebookresearch/deit', r'^blocks\.\d+\.attn\.weight$', resmlp_from_deit),
        Dialect('PaddleViT', r'^mixer_layers\.\d+\.linear_tokens\.', from_paddle),
    ),
)
GMLP = Family(
    'GMLP',
    mark=r'\.mlp_channels\.gate\.',
    native='timm',
    dialects=(Dialect('PaddleViT', r'^mixer_layers\.\d+\.mlp_channels\.gate\.', from_paddle),),
)
REPMLP = Family(
    'RepMLP',
    mark=r'\.repmlp_block\.',
    native='DingXiaoH/RepMLP',
    dialects=(
        Dialect('mmpretrain', r'^patch_embed\.projection\.', repmlp_from_mmpretrain),
        Dialect('PaddleViT', r'^conv_embedding\..*\._mean$', from_paddle),
    ),
)
FAMILIES = {family.name: family for family in (CONVMLP, RESMLP, GMLP, REPMLP)}
