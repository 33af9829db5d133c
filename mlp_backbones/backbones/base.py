"""What all backbones share: checked arguments, frozen stages, and weights that are loaded or refused."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional, Union

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..checkpoints import FAMILIES, CheckpointError, read_checkpoint, state_dict_of
from ..checks import MOST_PIXELS, check_flags, check_init_cfg, check_int, check_like, said
from ..layers import check_eval, checkpoint


def resolve_arch(name: str, arch: Union[str, Mapping], archs: Mapping[str, Mapping], aliases: Mapping) -> dict:
    """The settings of an architecture given by name or as a dict.

    Args:
        name (str): The family, for messages.
        arch (str | Mapping): A key of ``archs`` or ``aliases``, or a mapping with exactly the keys of its rows, and
            values of their kinds.
        archs (Mapping): The published variants.
        aliases (Mapping): Short name -> key of ``archs``.

    Raises:
        TypeError: ``arch`` is neither a string nor a mapping.
        ValueError: An unknown name, or a mapping with missing or unknown keys, or values of another kind.
    """
    if isinstance(arch, str):
        key = aliases.get(arch.lower(), arch.lower())
        if key not in archs:
            raise ValueError(
                f'{name} has no arch {said(arch)}; choose from {sorted([*archs, *aliases])} or give a dict'
            )
        return dict(archs[key])
    if not isinstance(arch, Mapping):
        raise TypeError(f'{name}: arch must be a string or a dict, got {type(arch).__name__}')
    row = next(iter(archs.values()))
    if set(arch) != set(row):
        raise ValueError(
            f'{name}: an arch dict has exactly the keys {sorted(row)}; '
            f'missing {sorted(row.keys() - set(arch))}, unknown {said([k for k in arch if k not in row])}'
        )
    # img_size may be one int or two, and is checked as the argument of that name is.
    return {k: v if k == 'img_size' else check_like(name, f'arch[{k!r}]', v, row[k]) for k, v in arch.items()}


def check_hidden(name: str, dims: Sequence[int], ratios: Sequence[float], divisor: int = 1) -> None:
    """Refuse MLPs without hidden channels.

    Raises:
        ValueError: ``int(dim * ratio)`` is no positive multiple of ``divisor``.
    """
    for dim, ratio in zip(dims, ratios):
        if int(dim * ratio) < 1 or int(dim * ratio) % divisor:
            raise ValueError(
                f'{name}: the hidden channels, dim * mlp_ratio, must be a positive multiple of {divisor}, got an arch '
                f'with {dim} * {ratio}'
            )


def resolve_out_indices(name: str, out_indices: Union[int, Sequence[int]], num_stages: int) -> tuple[int, ...]:
    """``out_indices`` as ascending, non-negative stage numbers.

    Raises:
        TypeError: Neither an int nor a sequence of ints.
        ValueError: Empty, out of range, or a stage named twice.
    """
    if isinstance(out_indices, int) and not isinstance(out_indices, bool):
        out_indices = (out_indices,)
    if not isinstance(out_indices, Sequence) or isinstance(out_indices, str):
        raise TypeError(f'{name}: out_indices must be an int or a sequence of ints, got {said(out_indices)}')
    given = out_indices[: num_stages + 1]  # more cannot all differ
    if not all(isinstance(i, int) and not isinstance(i, bool) for i in given):
        raise TypeError(f'{name}: out_indices must hold ints only, got {said(out_indices)}')
    if not given or any(not -num_stages <= i < num_stages for i in given):
        raise ValueError(
            f'{name}: out_indices must name at least one stage, each from {-num_stages} to {num_stages - 1}, '
            f'got {said(out_indices)}'
        )
    indices = sorted(i % num_stages for i in given)
    if len(set(indices)) != len(indices):
        raise ValueError(f'{name}: out_indices names a stage twice: {said(out_indices)}')
    return tuple(indices)


def resolve_img_size(name: str, img_size: Union[int, Sequence[int]], divisor: int) -> tuple[int, int]:
    """``img_size`` as (height, width).

    Args:
        name (str): The family, for messages.
        img_size (int | Sequence[int]): A side, or (height, width), in pixels.
        divisor (int): What both must be multiples of.

    Raises:
        TypeError: Neither an int nor two ints.
        ValueError: Not a positive multiple of ``divisor``, or too large for a matrix over its tokens.
    """
    sides = (img_size, img_size) if isinstance(img_size, int) else img_size
    if (
        not isinstance(sides, Sequence)
        or len(sides) != 2
        or not all(isinstance(n, int) and not isinstance(n, bool) for n in sides)
    ):
        raise TypeError(f'{name}: img_size must be an int or (height, width), got {said(img_size)}')
    if any(n > MOST_PIXELS for n in sides):
        raise ValueError(f'{name}: img_size must be up to {MOST_PIXELS} pixels, got {said(img_size)}')
    if any(n < 1 or n % divisor for n in sides):
        near = [max(divisor, round(n / divisor) * divisor) for n in sides]
        raise ValueError(
            f'{name}: img_size must be a multiple of {divisor} pixels in height and width, got {said(img_size)}; '
            f'the nearest is {tuple(near)}'
        )
    return sides[0], sides[1]


class BaseBackbone(BaseModule):
    """Base of the backbones.

    A subclass calls ``super().__init__`` first, builds its layers for the stages in ``range(self.num_built)``,
    then calls ``self._finish(deploy)``; it implements ``stage_modules`` and ``forward``. Parts that can be folded
    have a ``switch_to_deploy``. Stages after the last one in ``out_indices`` are not built: nothing is computed for
    nothing, and no parameter is left without a gradient.

    Args:
        channels (Sequence[int]): Channels of each stage's feature map.
        strides (Sequence[int]): Stride of each stage's feature map, in input pixels.
        in_channels (int): Channels of the input image.
        out_indices (int | Sequence[int]): Stages whose feature maps are returned; negative ones count from the end.
        frozen_stages (int): The stages up to and including this one are frozen (no gradients, norms in
            eval mode). -1 freezes nothing.
        norm_eval (bool): Keep every BatchNorm in eval mode while training.
        drop_path_rate (float): Stochastic depth rate, in [0, 1).
        with_cp (bool): Recompute activations in the backward pass to save memory.
        init_cfg (dict | list[dict], optional): mmengine's initialisation config. With
            ``dict(type='Pretrained', checkpoint=...)`` every tensor of the backbone is filled, or loading raises.

    Attributes:
        out_indices (tuple[int, ...]): As given, made non-negative and ascending.
        out_channels (tuple[int, ...]): Channels of each returned feature map.
        out_strides (tuple[int, ...]): Stride of each returned feature map, in input pixels.
    """

    # Regular expressions of names: a checkpoint with the first is of training form, one with the second alone is not.
    training_mark = deploy_mark = r'(?!)'
    init_cfg: Optional[Union[dict, list]]
    is_init: bool
    min_size = 32  # pixels, each side: below this the deepest map would be empty or all padding

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        in_channels: int = 3,
        out_indices: Union[int, Sequence[int]] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        drop_path_rate: float = 0.0,
        with_cp: bool = False,
        init_cfg: Optional[Union[dict, list]] = None,
    ) -> None:
        name = type(self).__name__
        check_init_cfg(name, init_cfg)
        check_flags(name, norm_eval=norm_eval, with_cp=with_cp)
        check_int(name, 'in_channels', in_channels)
        super().__init__(init_cfg)
        self.out_indices = resolve_out_indices(name, out_indices, len(channels))
        self.out_channels = tuple(channels[i] for i in self.out_indices)
        self.out_strides = tuple(strides[i] for i in self.out_indices)
        self.num_stages = len(channels)
        self.num_built = self.out_indices[-1] + 1
        if isinstance(frozen_stages, bool) or not isinstance(frozen_stages, int):
            raise TypeError(f'{name}: frozen_stages must be an int, got {said(frozen_stages)}')
        if not -1 <= frozen_stages < self.num_built:
            raise ValueError(
                f'{name}: frozen_stages must be from -1 (none) to {self.num_built - 1} (the last stage that '
                f'out_indices={self.out_indices} needs), got {frozen_stages}'
            )
        if isinstance(drop_path_rate, bool) or not isinstance(drop_path_rate, (int, float)):
            raise TypeError(f'{name}: drop_path_rate must be a number, got {said(drop_path_rate)}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'{name}: drop_path_rate must be in [0, 1), got {drop_path_rate}')
        self.deploy = False
        self._partial = False  # whether a load may leave tensors unfilled
        self.in_channels = in_channels
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.with_cp = with_cp

    @property
    def size_step(self) -> Optional[tuple[int, int]]:
        """Exported with dynamic height and width, it takes multiples of these; None: it takes one size only."""
        return (self.min_size, self.min_size)

    def stage_modules(self, index: int) -> list[nn.Module]:
        """The modules that turn the feature map of stage ``index - 1`` into that of stage ``index``."""
        raise NotImplementedError

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        """``module(x)``, checkpointed where ``with_cp`` asks for it."""
        return checkpoint(module, x) if self.with_cp and torch.is_grad_enabled() else module(x)

    def _emit(self, feature: Tensor, image: Tensor) -> Tensor:
        """A feature map in the memory format of the image it was computed from.

        mmcv's RoIAlign reads its input as contiguous whatever its strides are, and then returns garbage without a
        word (https://github.com/open-mmlab/mmcv/issues/2203): a contiguous image must give contiguous maps.
        """
        last = image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
        return feature.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def adapt(self, tensors: Mapping[str, Tensor]) -> 'Adapted':
        """The tensors of a checkpoint as this very model holds them; every way of loading passes here.

        Args:
            tensors (Mapping[str, Tensor]): By their names within the backbone, in any dialect.

        Raises:
            CheckpointError: They belong to a model that this one cannot become.
        """
        family = next(FAMILIES[c.__name__] for c in type(self).__mro__ if c.__name__ in FAMILIES)
        adapted = Adapted(dict(tensors), family.native)
        for dialect in family.dialects:
            if dialect.recognises(tensors):
                adapted = Adapted(dialect.convert(tensors), dialect.name)
                break
        self._check_form(adapted.tensors)
        return adapted

    def _check_form(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ``CheckpointError`` where a checkpoint and the backbone are of different forms."""
        name = type(self).__name__
        trained, folded = (any(re.search(m, k) for k in tensors) for m in (self.training_mark, self.deploy_mark))
        if folded and not trained and not self.deploy:
            raise CheckpointError(
                f'the checkpoint is of {name} in deploy form, this backbone is in training form: build it with '
                f'deploy=True'
            )
        if trained and self.deploy:
            raise CheckpointError(
                f'the checkpoint is of {name} in training form, this backbone is in deploy form: build it with '
                f'deploy=False, load the checkpoint, and call switch_to_deploy() in eval mode'
            )

    def _fit(self, tensors: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
        """Adapt tensors, make sure that they fill the backbone, and say in the log what was used.

        Raises:
            CheckpointError: A tensor of the backbone is missing, or of another shape.
        """
        adapted = self.adapt(tensors)
        loaded, own, name = adapted.tensors, self.state_dict(), type(self).__name__
        missing = sorted(k for k in own.keys() - loaded.keys() if not self._may_be_missing(k))
        wrong = [
            f'{k}: {tuple(loaded[k].shape)} in the file, {tuple(v.shape)} in the model'
            for k, v in own.items()
            if k in loaded and loaded[k].shape != v.shape
        ]
        unused = sorted(loaded.keys() - own.keys())
        wrong += [f'{k}: beyond the depth of the model' for k in unused if self._is_deeper(k)]
        if missing or wrong:
            raise CheckpointError(
                f'{source} does not fill this {name} (is it another arch?). Names: {adapted.dialect}\n'
                f'  missing ({len(missing)}): {_shorten(missing)}\n'
                f'  of another shape ({len(wrong)}): {_shorten(wrong)}\n'
                f'  in the file but not in the backbone ({len(unused)}): {_shorten(unused)}'
            )
        print_log(
            f'{name}: {len(own.keys() & loaded.keys())} tensors filled from {source}, names of {adapted.dialect}'
            + (f'; {adapted.resized} resized' if adapted.resized else '')
            + (f'; not part of the backbone and left out: {_shorten(unused)}' if unused else ''),
            logger='current',
        )
        loaded.update({k: v for k, v in own.items() if k not in loaded})  # what may be missing stays as it is
        return loaded

    def _is_deeper(self, name: str) -> bool:
        """Whether a tensor belongs to a block behind the last one that this arch has."""
        module: nn.Module = self
        for depth, part in enumerate(name.split('.')):
            if isinstance(module, nn.ModuleList) and part.isdecimal() and int(part) >= len(module):
                # The outermost list may be shorter than the arch: out_indices needs no more.
                return depth > 1 or int(part) >= self.num_stages
            child = module._modules.get(part)
            if child is None:
                return False
            module = child
        return False

    def load_state_dict(self, state_dict: Mapping, strict: bool = True, *args, **kwargs):
        """As ``torch.nn.Module.load_state_dict``, in any dialect.

        Only ``strict=False``, given here, leaves tensors of the backbone unfilled. Within a larger model, and through
        mmengine, a checkpoint that does not fill the backbone raises.
        """
        self._partial = not strict
        try:
            return super().load_state_dict(state_dict, strict, *args, **kwargs)
        finally:
            self._partial = False

    def _load_from_state_dict(self, state_dict: dict, prefix: str, local_metadata: dict, strict: bool, *args) -> None:
        own = {k[len(prefix) :]: state_dict.pop(k) for k in list(state_dict) if k.startswith(prefix)}
        if own and not prefix:
            own = _bare(own, 'the checkpoint')
        own = self.adapt(own).tensors if self._partial else self._fit(own, 'the checkpoint')
        state_dict.update({prefix + k: v for k, v in own.items()})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *args)

    def _may_be_missing(self, name: str) -> bool:
        """Whether a checkpoint may come without this tensor, whose initial value changes nothing."""
        return name.endswith('num_batches_tracked')  # absent from very old files, and from PaddlePaddle's

    def _check_input(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise ValueError(
                f'{type(self).__name__} takes images of shape (N, {self.in_channels}, H, W), got {tuple(x.shape)}'
            )
        if min(x.shape[2:]) < self.min_size:
            raise ValueError(
                f'{type(self).__name__} takes images of at least {self.min_size}x{self.min_size} pixels, '
                f'got {x.shape[2]}x{x.shape[3]}; resize or pad them'
            )

    def _frozen_modules(self) -> list[nn.Module]:
        return [m for i in range(self.frozen_stages + 1) for m in self.stage_modules(i)]

    def _finish(self, deploy: bool) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if deploy:
            self._fold()

    def _fold(self) -> None:
        for module in list(self.modules()):
            if module is not self and hasattr(module, 'switch_to_deploy'):
                module.switch_to_deploy()
        self.deploy = True
        self.train(self.training)  # new modules too

    def switch_to_deploy(self) -> None:
        """Fold norms, affines and parallel branches into the layers beside them, in place.

        Outputs in eval mode are the same. A folded backbone stays as it is. See ``mlp_backbones.reparameterize``.

        Raises:
            RuntimeError: The backbone is in training mode, in which the two forms differ.
        """
        check_eval(self)
        self._fold()

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

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``; without one the values set at construction stay.

        Raises:
            CheckpointError: A pretrained checkpoint does not fill every tensor of the backbone, or is none.
        """
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else list(self.init_cfg or [])
        pretrained = [cfg for cfg in cfgs if cfg.get('type') == 'Pretrained']
        if not pretrained or self.is_init:
            return super().init_weights()
        given, self.init_cfg = self.init_cfg, [cfg for cfg in cfgs if cfg not in pretrained] or None
        try:
            if self.init_cfg:
                super().init_weights()
            for cfg in pretrained:
                self._load_pretrained(**{k: v for k, v in cfg.items() if k != 'type'})
            self.is_init = True
        except BaseException:
            self.is_init = False
            raise
        finally:
            self.init_cfg = given

    def _load_pretrained(self, checkpoint: str, prefix: Optional[str] = None, map_location: str = 'cpu') -> None:
        tensors = _bare(read_checkpoint(checkpoint), checkpoint, prefix)
        # Already adapted, so that it passes the second time as it is.
        self.load_state_dict(self._fit(tensors, checkpoint), strict=False)


class Adapted(NamedTuple):
    """A checkpoint's tensors under our names.

    Attributes:
        tensors (dict[str, Tensor]): By our names.
        dialect (str): Whose names they had.
        resized (int): How many were resized to another token grid.
    """

    tensors: dict[str, Tensor]
    dialect: str
    resized: int = 0


def _bare(content: object, source: object, prefix: Optional[str] = None) -> dict[str, Tensor]:
    """The backbone's tensors of a checkpoint; ``prefix`` is removed, by default ``backbone.`` where there is one."""
    tensors = state_dict_of(content, source)
    if prefix is None and not any(k.startswith('backbone.') for k in tensors):
        return tensors
    prefix = (prefix or 'backbone').rstrip('.') + '.'
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _shorten(names: Sequence[str], most: int = 8) -> str:
    listed = ', '.join(names[:most]) or 'none'
    return listed + (f', and {len(names) - most} more' if len(names) > most else '')
