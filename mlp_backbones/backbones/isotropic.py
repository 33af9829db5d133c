"""What the families with one token grid from the first block to the last share: ResMLP and gMLP.

Their token mixing is a matrix over the tokens of one image size. Here is the one place that takes them to any other.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoints import CheckpointError
from ..checks import check_flags, said
from ..layers import PatchEmbed, TokenMixing, WindowPropagation, from_windows, resize_token_mixing, to_windows
from .base import Adapted, BaseBackbone, resolve_img_size

TOKEN_MIXING = {
    'window': 'images of any size are cut into windows of img_size, the weights stay as they are',
    'resize': 'the weights are interpolated to img_size as they are loaded',
    'fixed': 'as in the original: images of img_size only',
}
NUM_PROPAGATIONS = 4  # evenly spaced over the depth, the last one after the last block (as ViTDet, arXiv 2203.16527)


class IsotropicBackbone(BaseBackbone):
    """A patch embedding and blocks over one grid of tokens.

    A subclass calls ``super().__init__``, appends its blocks, each (B, L, C) -> (B, L, C), to ``self.blocks``, sets
    ``self.norm`` and calls ``self._finish(deploy)``.

    With ``token_mixing`` other than 'fixed', images of any size are taken: a window covers ``img_size`` pixels, an
    image is padded with zeros at its right and bottom to whole windows, and the map is cropped again before it is
    returned. Since hosts pad batches with zeros too (after normalisation: with the mean colour), an image padded here
    and one padded there give the same map (with ``cross_window`` up to whole windows of padding, which the convolutions
    see). Padding is part of a window like any other area of one colour, so it does reach the tokens of its own window;
    with ``img_size`` dividing the image there is none.

    Args:
        dim (int): Channels.
        depth (int): Blocks.
        patch_size (int): Side of a patch in pixels, the stride of every feature map.
        img_size (int | Sequence[int]): Side, or (height, width), of the token grid in pixels.
        token_mixing (str): 'window', 'resize' or 'fixed'.
        cross_window (bool): Let windows talk to each other: four depthwise 3x3 convolutions over the whole map, each
            added to it after a quarter of the blocks. They start at zero, and pretrained checkpoints come without.
        final_norm (bool): Apply the last norm to the last block's map.
        in_channels, out_indices, frozen_stages, drop_path_rate, with_cp, norm_eval, init_cfg: See ``BaseBackbone``;
            the stages are the blocks, and the first one includes the patch embedding.
    """

    num_extra_tokens = 0  # every token is a place of the image; mmpretrain's vis_cam.py asks, and takes 1 for granted

    def __init__(
        self,
        dim: int,
        depth: int,
        patch_size: int,
        img_size: Union[int, Sequence[int]],
        token_mixing: str,
        cross_window: bool,
        final_norm: bool,
        in_channels: int,
        **kwargs,
    ) -> None:
        name = type(self).__name__
        check_flags(name, cross_window=cross_window, final_norm=final_norm)
        super().__init__([dim] * depth, [patch_size] * depth, in_channels=in_channels, **kwargs)
        if not isinstance(token_mixing, str) or token_mixing not in TOKEN_MIXING:
            modes = '; '.join(f'{mode!r} ({what})' for mode, what in TOKEN_MIXING.items())
            raise ValueError(f'{name} has no token_mixing {said(token_mixing)}; choose from {modes}')
        if final_norm and self.num_built < depth:
            raise ValueError(
                f'{name}: final_norm belongs to the last block, {depth - 1}, '
                f'which out_indices={self.out_indices} leaves out'
            )
        self.img_size = resolve_img_size(name, img_size, patch_size)
        self.patch_size = patch_size
        self.token_mixing = token_mixing
        self.grid = (self.img_size[0] // patch_size, self.img_size[1] // patch_size)
        self.stem = PatchEmbed(in_channels, dim, patch_size)
        self.blocks = nn.ModuleList()
        ends = [depth * (i + 1) // NUM_PROPAGATIONS - 1 for i in range(NUM_PROPAGATIONS)] if cross_window else []
        self.propagations = nn.ModuleDict({str(i): WindowPropagation(dim) for i in ends if 0 <= i < self.num_built})
        self.norm: Optional[nn.Module] = None

    @property
    def size_step(self) -> Optional[tuple[int, int]]:
        return None if self.token_mixing == 'fixed' else self.img_size

    def stage_modules(self, index: int) -> list[nn.Module]:
        modules: list[nn.Module] = [self.stem] if index == 0 else []
        modules.append(self.blocks[index])
        if str(index) in self.propagations:
            modules.append(self.propagations[str(index)])
        if self.norm is not None and index == self.num_built - 1:
            modules.append(self.norm)
        return modules

    def _pad(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        if (height, width) == self.img_size:
            return image
        if self.token_mixing == 'fixed':
            raise ValueError(
                f"{type(self).__name__} with token_mixing='fixed' takes images of {self.img_size[0]}x"
                f"{self.img_size[1]} pixels only, got {height}x{width}; use token_mixing='window' for any size, or "
                f"'resize' with img_size=({height}, {width})"
            )
        return F.pad(image, (0, -width % self.img_size[1], 0, -height % self.img_size[0]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._check_input(x)
        image = x
        height, width = (-(-n // self.patch_size) for n in image.shape[2:])  # rounded up
        x = self.stem(self._pad(image).contiguous(memory_format=torch.channels_last))
        size = x.shape[2:]  # of the map in tokens, whole windows
        x = to_windows(x.permute(0, 2, 3, 1), self.grid)  # (N, C, H, W) -> (N * windows, L, C)
        outs = []
        for index, block in enumerate(self.blocks):
            x = self._run(block, x)
            if str(index) in self.propagations:
                x = from_windows(x, self.grid, size)
                x = to_windows(self._run(self.propagations[str(index)], x), self.grid)
            if index in self.out_indices:
                norm = self.norm if index == self.num_built - 1 else None
                out = from_windows(x if norm is None else norm(x), self.grid, size)[:, :height, :width]
                outs.append(self._emit(out.permute(0, 3, 1, 2), image))
        return tuple(outs)

    def adapt(self, tensors: Mapping[str, Tensor]) -> Adapted:
        tensors, dialect, _ = super().adapt(tensors)
        resized = 0
        length = self.grid[0] * self.grid[1]
        if self.grid[0] != self.grid[1] and math.isqrt(length) ** 2 == length:
            # Published weights have square grids, and a file does not say which grid its numbers belong to.
            print_log(
                f'{type(self).__name__}: token mixing weights of {length} tokens are taken for those of a '
                f'{self.grid[0]}x{self.grid[1]} grid; if they are of a {math.isqrt(length)}x{math.isqrt(length)} one, '
                f'use another img_size',
                logger='current',
                level=logging.WARNING,
            )
        for name, module in self.named_modules():
            weight = tensors.get(f'{name}.weight')
            bias = f'{name}.bias' if getattr(module, 'shift', None) is None else f'{name}.shift'
            if not isinstance(module, TokenMixing) or weight is None or bias not in tensors:
                continue
            if weight.shape == module.weight.shape:
                continue
            side = math.isqrt(weight.shape[0]) if weight.ndim else 0
            fits = weight.shape == (side * side, side * side) and tensors[bias].shape[:1] == (side * side,)
            if not side or not fits or tensors[bias].ndim > 2:
                raise CheckpointError(
                    f'{name}.weight is of shape {tuple(weight.shape)}: not the weights of a square token grid, '
                    f'so they cannot be taken to the {self.grid[0]}x{self.grid[1]} grid of img_size={self.img_size}'
                )
            if self.token_mixing != 'resize':
                raise CheckpointError(
                    f'the checkpoint was made for a token grid of {side}x{side} (img_size={side * self.patch_size}), '
                    f'this {type(self).__name__} has one of {self.grid[0]}x{self.grid[1]} (img_size={self.img_size}): '
                    f"use token_mixing='resize' to interpolate the weights, or token_mixing='window' with "
                    f'img_size={side * self.patch_size}'
                )
            tensors[f'{name}.weight'], tensors[bias] = resize_token_mixing(
                weight, tensors[bias], (side, side), self.grid
            )
            resized += 2
        return Adapted(tensors, dialect, resized)

    def _may_be_missing(self, name: str) -> bool:
        return name.startswith('propagations.') or super()._may_be_missing(name)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """The depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): The backbone's prefix there, such as 'backbone.'.

        Returns:
            tuple[int, int]: The depth (0: patch embedding, then one for each block; the final norm and what follows
            the backbone come last) and the number of depths.
        """
        num_layers = len(self.blocks) + 2
        parts = param_name[len(prefix) :].split('.') if param_name.startswith(prefix) else ['']
        if parts[0] == 'stem':
            return 0, num_layers
        if parts[0] in ('blocks', 'propagations'):
            return int(parts[1]) + 1, num_layers
        return num_layers - 1, num_layers
