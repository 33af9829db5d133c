"""What the families with one token grid from the first block to the last share: ResMLP and gMLP.

Their token mixing is a matrix over the tokens of one image size. Here is the one place that takes them to any other.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ...checkpoints import CheckpointError
from ...utils.checks import check_flags, short_repr
from ...utils.errors import InvalidValue
from ..layers.mlp import PatchEmbed
from ..layers.token_mixing import TokenMixing, resize_token_mixing
from ..layers.windows import WindowPropagation, crop, from_windows, pad_to_multiple, to_windows
from .base import BaseBackbone, resolve_img_size

NUM_PROPAGATIONS = 4  # evenly spaced over the depth, the last one after the last block (as ViTDet, arXiv 2203.16527)


class IsotropicBackbone(BaseBackbone):
    """A patch embedding and blocks over one grid of tokens.

    A subclass calls ``super().__init__``, appends its blocks, each (B, L, C) -> (B, L, C), to ``self.blocks``, sets
    ``self.norm`` for ``final_norm`` and calls ``self._finish()``. A block is a stage, whose map has the stride of the
    patch size; the first stage includes the patch embedding.

    With ``token_mixing`` other than 'fixed', images of any size are taken: a window covers ``img_size`` pixels, an
    image is padded with zeros at its right and bottom to whole windows, and the map is cropped again before it is
    returned. Since frameworks pad batches with zeros too (after normalization: with the mean color), an image padded
    here and one padded there give the same map (with ``cross_window`` up to whole windows of padding, which the
    convolutions see). Padding is part of a window like any other area of one color, so it does reach the tokens of its
    own window; with ``img_size`` dividing the image there is none.

    Args:
        dim (int): Channels.
        depth (int): Blocks.
        patch_size (int): Side of a patch in pixels, the stride of every feature map.
        img_size (int | Sequence[int]): Side, or (height, width), of the token grid in pixels, a multiple of the patch
            size. Defaults to 224, the size of the published weights.
        token_mixing (str): What happens to other sizes. 'window': the image is padded to whole windows of
            ``img_size``, weights stay exact, and cost grows linearly with the pixels. 'resize': weights of another
            grid are interpolated to ``img_size`` as they are loaded; images of other sizes are cut into windows of
            ``img_size``. 'fixed': images of ``img_size`` only. Defaults to 'window'.
        cross_window (bool): Let windows talk to each other: four depthwise 3x3 convolutions over the whole map, each
            added to it after a quarter of the blocks. They start at zero, and pretrained checkpoints come without.
            Defaults to False.
        out_indices (int | Sequence[int]): The blocks after which the map is returned; negative ones count from the
            end. Defaults to -1, the last one.
        **kwargs: Further arguments of ``BaseBackbone``. The rate of stochastic depth is the same for every block,
            and windows are dropped one by one; ``norm_eval`` has no effect, since there is no BatchNorm.

    Raises:
        TypeError, ValueError: An argument or an input that is not as described above.
    """

    input_layer = 'stem.proj'
    num_extra_tokens = 0  # every token is a place of the image; mmpretrain's vis_cam.py asks, and takes 1 for granted

    def __init__(
        self,
        dim: int,
        depth: int,
        patch_size: int,
        /,  # these are of the arch
        img_size: int | Sequence[int] = 224,
        token_mixing: str = 'window',
        cross_window: bool = False,
        out_indices: int | Sequence[int] = -1,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_flags(name, cross_window=cross_window)
        super().__init__([dim] * depth, [patch_size] * depth, out_indices=out_indices, **kwargs)
        if not isinstance(token_mixing, str) or token_mixing not in ('window', 'resize', 'fixed'):
            raise InvalidValue(
                f"{name} has no token_mixing {short_repr(token_mixing)}; choose from 'window' and 'resize', which take "
                f"images of any size, and 'fixed'"
            )
        self.img_size = resolve_img_size(name, img_size, patch_size)
        self.patch_size = patch_size
        self.token_mixing = token_mixing
        self.grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        self.stem = PatchEmbed(self.in_channels, dim, patch_size)
        self.blocks = nn.ModuleList()
        # What follows each block: a propagation, or nothing.
        ends = [depth * (i + 1) // NUM_PROPAGATIONS - 1 for i in range(NUM_PROPAGATIONS)] if cross_window else []
        self.propagations = nn.ModuleList(
            WindowPropagation(dim) if i in ends else nn.Identity() for i in range(self.num_built)
        )
        self.norm: nn.Module | None = None

    @property
    def size_step(self) -> tuple[int, int] | None:
        return None if self.token_mixing == 'fixed' else self.img_size

    def stage_modules(self, index: int) -> list[nn.Module]:
        modules: list[nn.Module] = [self.stem] if index == 0 else []
        modules += [self.blocks[index], self.propagations[index]]
        return modules + ([self.norm] if self.norm is not None and index == self.num_built - 1 else [])

    def _pad(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if (height, width) == self.img_size:
            return image
        if self.token_mixing == 'fixed':
            raise InvalidValue(
                f"{type(self).__name__} with token_mixing='fixed' takes images of {self.img_size[0]}x"
                f"{self.img_size[1]} pixels only, got {height}x{width}; use token_mixing='window' for any size, or "
                f"'resize' with img_size=({height}, {width})"
            )
        return pad_to_multiple(image, self.img_size)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_input(x)
        image = x
        height, width = ((n + self.patch_size - 1) // self.patch_size for n in image.shape[2:])
        x = self.stem(self._pad(image).contiguous(memory_format=torch.channels_last))
        size = x.shape[2:]  # of the map in tokens, whole windows
        x = to_windows(x.permute(0, 2, 3, 1), self.grid)  # (N, C, H, W) -> (N * windows, L, C)
        outs = []
        for index, (block, propagation) in enumerate(zip(self.blocks, self.propagations)):
            x = block(x)
            if isinstance(propagation, WindowPropagation):
                x = to_windows(propagation(from_windows(x, self.grid, size)), self.grid)
            if index in self.out_indices:
                norm = self.norm if index == self.num_built - 1 else None
                out = from_windows(x if norm is None else norm(x), self.grid, size)
                out = crop(out, height, width, channels_last=True)
                outs.append(self._in_memory_format_of(out.permute(0, 3, 1, 2), image))
        return tuple(outs)

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        tensors, notes = super().adapt(tensors)
        rows, columns = self.grid
        side = math.isqrt(rows * columns)
        if rows != columns and side**2 == rows * columns:
            # Published weights have square grids, and a file does not say which grid its numbers belong to.
            print_log(
                f'{type(self).__name__}: token mixing weights of {side**2} tokens are taken for those of a '
                f'{rows}x{columns} grid; if they are of a {side}x{side} one, use another img_size',
                logger='current',
                level=logging.WARNING,
            )
        resized = 0
        for name, module in self.named_modules():
            weight, bias = f'{name}.weight', f'{name}.{"shift" if self.deploy else "bias"}'
            if isinstance(module, TokenMixing) and weight in tensors and bias in tensors:
                if tensors[weight].shape != module.weight.shape:
                    tensors[weight], tensors[bias] = self._to_own_grid(weight, tensors[weight], tensors[bias])
                    resized += 2
        if resized:
            notes.append(f'{resized} tensors resized to a token grid of {rows}x{columns}')
        return tensors, notes

    def _to_own_grid(self, name: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return token mixing weights of another, square grid for the one that this backbone has."""
        side = math.isqrt(weight.shape[0]) if weight.ndim else 0
        if not side or {*weight.shape, *bias.shape[:1]} != {side**2} or weight.ndim != 2 or bias.ndim not in (1, 2):
            raise CheckpointError(
                f'{name} is of shape {tuple(weight.shape)}: not the weights of a square token grid, '
                f'so they cannot be taken to the {self.grid[0]}x{self.grid[1]} grid of img_size={self.img_size}'
            )
        if self.token_mixing != 'resize':
            raise CheckpointError(
                f'the checkpoint was made for a token grid of {side}x{side} (img_size={side * self.patch_size}), '
                f'this {type(self).__name__} has one of {self.grid[0]}x{self.grid[1]} (img_size={self.img_size}): '
                f"use token_mixing='resize' to interpolate the weights, or token_mixing='window' with "
                f'img_size={side * self.patch_size}'
            )
        return resize_token_mixing(weight, bias, (side, side), self.grid)

    def _may_be_missing(self, name: str) -> bool:
        return name.startswith('propagations.') or super()._may_be_missing(name)

    def _depth_groups(self) -> list[list[str]]:
        return [['stem'], *([f'blocks.{i}', f'propagations.{i}'] for i in range(len(self.blocks)))]
