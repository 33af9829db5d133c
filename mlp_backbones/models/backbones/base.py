"""What all backbones share: checked arguments, frozen stages, layer depths, and both forms.

An argument of another type raises TypeError, one of another value ValueError; messages begin with the family's name.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...utils.checks import MOST_PIXELS, check_flags, check_int, check_like, is_int, is_number, short_repr
from ...utils.errors import InvalidType, InvalidValue
from ..layers.activation_checkpointing import Recomputed
from ..layers.folding import Deployable
from .loading import CheckpointModule


def resolve_arch(name: str, arch: str | Mapping, archs: Mapping[str, Mapping], aliases: Mapping) -> dict:
    """Return the settings of an architecture: a row of ``archs``, or a mapping like one.

    Args:
        name (str): The family, for messages.
        arch (str | Mapping): A key of ``archs`` or ``aliases``, or a mapping with exactly the keys of its rows, and
            values of their kinds.
        archs (Mapping): The published variants.
        aliases (Mapping): Short name -> key of ``archs``.
    """
    if isinstance(arch, str):
        key = aliases.get(arch.lower(), arch.lower())
        if key not in archs:
            raise InvalidValue(
                f'{name} has no arch {short_repr(arch)}; choose from {sorted([*archs, *aliases])} or give a dict'
            )
        return dict(archs[key])
    if not isinstance(arch, Mapping):
        raise InvalidType(f'{name}: arch must be a string or a dict, got {type(arch).__name__}')
    row = next(iter(archs.values()))
    if set(arch) != set(row):
        raise InvalidValue(
            f'{name}: an arch dict has exactly the keys {sorted(row)}; '
            f'missing {sorted(row.keys() - set(arch))}, unknown {short_repr([k for k in arch if k not in row])}'
        )
    # img_size may be one int or two, and is checked as the argument of that name is.
    return {k: v if k == 'img_size' else check_like(name, f'arch[{k!r}]', v, row[k]) for k, v in arch.items()}


def check_hidden(name: str, dims: Sequence[int], ratios: Sequence[float], divisor: int = 1) -> None:
    """Raise ValueError for MLPs whose hidden channels are not a positive multiple of ``divisor``."""
    for dim, ratio in zip(dims, ratios):
        if int(dim * ratio) < 1 or int(dim * ratio) % divisor:
            raise InvalidValue(
                f'{name}: the hidden channels, dim * mlp_ratio, must be a positive multiple of {divisor}, got an arch '
                f'with {dim} * {ratio}'
            )


def resolve_out_indices(name: str, out_indices: int | Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Return ``out_indices`` as ascending, non-negative stage numbers."""
    given = (out_indices,) if is_int(out_indices) else out_indices
    if not isinstance(given, Sequence) or not all(map(is_int, given[: num_stages + 1])):  # more cannot all differ
        raise InvalidType(f'{name}: out_indices must be an int or a sequence of ints, got {short_repr(out_indices)}')
    indices = {int(i) % num_stages for i in given[: num_stages + 1] if -num_stages <= i < num_stages}
    if not indices or len(indices) < len(given):
        raise InvalidValue(
            f'{name}: out_indices must name at least one stage, each once and from {-num_stages} to {num_stages - 1}, '
            f'got {short_repr(out_indices)}'
        )
    return tuple(sorted(indices))


def resolve_img_size(name: str, img_size: int | Sequence[int], divisor: int) -> tuple[int, int]:
    """Return ``img_size``, a side or (height, width) in pixels, multiples of ``divisor``, as (height, width)."""
    sides = (img_size, img_size) if is_int(img_size) else img_size
    if not isinstance(sides, Sequence) or len(sides) != 2 or not all(map(is_int, sides)):
        raise InvalidType(f'{name}: img_size must be an int or (height, width), got {short_repr(img_size)}')
    if max(sides) > MOST_PIXELS:
        raise InvalidValue(f'{name}: img_size must be up to {MOST_PIXELS} pixels, got {short_repr(img_size)}')
    if any(n < 1 or n % divisor for n in sides):
        near = tuple(max(divisor, round(n / divisor) * divisor) for n in sides)
        raise InvalidValue(
            f'{name}: img_size must be a multiple of {divisor} pixels in height and width, got {short_repr(img_size)}; '
            f'the nearest is {near}'
        )
    return int(sides[0]), int(sides[1])


class BaseBackbone(CheckpointModule, Deployable):
    """Base of the backbones.

    A subclass calls ``super().__init__`` first, builds its layers for the stages in ``range(self.num_built)`` and in
    the form that ``self.deploy`` says, then calls ``self._finish()``; it implements ``stage_modules`` and
    ``_depth_groups``. Stages after the last one in ``out_indices`` are not built: nothing is computed
    for nothing, and no parameter is left without a gradient.

    Args:
        channels (Sequence[int]): Channels of each stage's feature map.
        strides (Sequence[int]): Stride of each stage's feature map, in input pixels.
        in_channels (int): Channels of the input image. Defaults to 3.
        out_indices (int | Sequence[int]): Stages whose feature maps are returned; negative ones count from the end.
            Defaults to (0, 1, 2, 3).
        frozen_stages (int): The stages up to and including this one are frozen (no gradients, norms in
            eval mode). Defaults to -1, nothing.
        norm_eval (bool): Keep every BatchNorm in eval mode while training. Defaults to False.
        final_norm (bool): Apply the classifier's norm to the last feature map; classification needs it, dense
            prediction goes without. Defaults to False.
        drop_path_rate (float): Stochastic depth rate, in [0, 1). Defaults to 0.
        with_cp (bool): Recompute activations in the backward pass to save memory. Defaults to False.
        deploy (bool): Build the folded form, for inference: it takes folded checkpoints, see ``switch_to_deploy``.
            Defaults to False.
        init_cfg (dict | list[dict], optional): mmengine's initialization config. With
            ``dict(type='Pretrained', checkpoint=...)`` every tensor of the backbone is filled, or loading raises.
        **unknown (object): Raises TypeError.

    Attributes:
        out_indices (tuple[int, ...]): As given, made non-negative and ascending.
        out_channels (tuple[int, ...]): Channels of each returned feature map.
        out_strides (tuple[int, ...]): Stride of each returned feature map, in input pixels.
        strides (tuple[int, ...]): Those of all stages.

    Raises:
        TypeError, ValueError: An argument that is not as described above.
    """

    amp_dtype = 'float16'  # the mixed precision that suits the family; 'bfloat16' where float16 overflows
    memory_format = torch.contiguous_format  # that the layers work in, whatever the image's is
    min_size = 32  # pixels, each side: below this the deepest map would be empty or all padding

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        /,  # what a family derives from its arch is not an argument of its own
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        final_norm: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        deploy: bool = False,
        init_cfg: dict | list | None = None,
        **unknown: object,
    ) -> None:
        name = type(self).__name__
        if unknown:
            raise InvalidType(
                f"{name} got an unexpected keyword argument '{min(unknown)}'. If another backbone was inherited, "
                f'replace its settings: backbone=dict(_delete_=True, ...)'
                + ('; in mmseg, also set model.pretrained=None' if 'pretrained' in unknown else '')
            )
        check_flags(name, norm_eval=norm_eval, final_norm=final_norm, with_cp=with_cp, deploy=deploy)
        in_channels = check_int(name, 'in_channels', in_channels)
        super().__init__(init_cfg)
        self.out_indices = resolve_out_indices(name, out_indices, len(channels))
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.strides = tuple(strides)
        self.out_strides = tuple(strides[i] for i in self.out_indices)
        self.num_stages = len(channels)
        self.num_built = self.out_indices[-1] + 1
        self._check_settings(frozen_stages, final_norm, drop_path_rate)
        self.in_channels = in_channels
        self.frozen_stages = int(frozen_stages)
        self.norm_eval = norm_eval
        self.final_norm = final_norm
        self.drop_path_rate = float(drop_path_rate)
        self.with_cp = with_cp
        self.deploy = bool(deploy)

    def _check_settings(self, frozen_stages: int, final_norm: bool, drop_path_rate: float) -> None:
        name = type(self).__name__
        if not is_int(frozen_stages):
            raise InvalidType(f'{name}: frozen_stages must be an int, got {short_repr(frozen_stages)}')
        if not -1 <= frozen_stages < self.num_built:
            raise InvalidValue(
                f'{name}: frozen_stages must be from -1 (none) to {self.num_built - 1} (the last stage that '
                f'out_indices={self.out_indices} needs), got {frozen_stages}'
            )
        if final_norm and self.num_built < self.num_stages:
            raise InvalidValue(
                f'{name}: final_norm belongs to the last stage, {self.num_stages - 1}, '
                f'which out_indices={self.out_indices} leaves out'
            )
        if not is_number(drop_path_rate):
            raise InvalidType(f'{name}: drop_path_rate must be a number, got {short_repr(drop_path_rate)}')
        if not 0 <= drop_path_rate < 1:
            raise InvalidValue(f'{name}: drop_path_rate must be in [0, 1), got {drop_path_rate}')

    @property
    def size_step(self) -> tuple[int, int] | None:
        """Multiples of height and width that need no padding, in pixels; None where only ``img_size`` is possible."""
        return (self.min_size, self.min_size)

    def stage_modules(self, index: int) -> list[nn.Module]:
        """Return the modules, in order, that turn the feature map of stage ``index - 1`` into that of ``index``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of ``out_indices``, in the memory format of the image ``x``."""
        self._check_input(x)
        image, x = x, x.contiguous(memory_format=self.memory_format)
        outs = []
        for index in range(self.num_built):
            for module in self.stage_modules(index):
                x = module(x)
            if index in self.out_indices:
                outs.append(self._in_memory_format_of(x, image))
        return tuple(outs)

    def _depth_groups(self) -> list[list[str]]:
        """Return the names of the modules of each depth, from the image on; what is in none comes last."""
        raise NotImplementedError

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Return the depth of a parameter, for layer-wise learning rate decay.

        Args:
            param_name (str): Its name in the whole model.
            prefix (str): The backbone's prefix there, such as 'backbone.'.

        Returns:
            tuple[int, int]: The depth (0: what embeds the image, then one for each block that is built; a downsampling
            counts with the block before it; the final norm and what follows the backbone come last) and the number of
            depths.
        """
        groups = self._depth_groups()
        name = param_name.removeprefix(prefix) if param_name.startswith(prefix) else ''
        depths = (depth for depth, group in enumerate(groups) for part in group if name.startswith(f'{part}.'))
        return next(depths, len(groups)), len(groups) + 1

    def _in_memory_format_of(self, feature: Tensor, image: Tensor) -> Tensor:
        """Return a feature map in the memory format of the image it was computed from.

        mmcv's RoIAlign reads its input as contiguous whatever its strides are, and then returns garbage without a
        word (https://github.com/open-mmlab/mmcv/issues/2203): a contiguous image must give contiguous maps.
        """
        channels_last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
        return feature.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise InvalidValue(
                f'{type(self).__name__} takes images of shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}'
            )
        if min(x.shape[2:]) < self.min_size:
            raise InvalidValue(
                f'{type(self).__name__} takes images of at least {self.min_size}x{self.min_size} pixels, '
                f'got {x.shape[2]}x{x.shape[3]}; resize or pad them'
            )

    def _frozen_modules(self) -> list[nn.Module]:
        return [m for i in range(self.frozen_stages + 1) for m in self.stage_modules(i)]

    def _finish(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Recomputed):
                module.with_cp = self.with_cp

    def train(self, mode: bool = True):
        """Set training mode; frozen stages, and with ``norm_eval`` every BatchNorm, stay in eval mode."""
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self
