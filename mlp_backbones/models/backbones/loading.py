"""From a checkpoint's tensors to a backbone's: names translated, shapes adapted, and nothing left unfilled.

What leads here:

- ``init_cfg``: ``read_checkpoint`` -> ``state_dict_of`` -> ``CheckpointModule.fit``, copied in place
- ``load_from``: ``AdaptCheckpointHook``: ``read_checkpoint`` -> ``fit_model`` -> ``fit`` of each backbone -> mmengine
- ``get_model``, tools: ``read_checkpoint`` -> ``zoo.fill_model`` -> ``fit_model`` -> ``fit`` -> ``load_state_dict``

In the latter two ``load_state_dict`` adapts once more, in its hook, which changes nothing of what ``fit`` returned.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...checkpoints import CheckpointError, Family, read_checkpoint, state_dict_of


class Adapted(NamedTuple):
    """A checkpoint under the names and in the shapes of a model.

    Attributes:
        tensors (dict[str, Tensor]): By the model's names; what the model does not have is among them.
        dialect (str): Whose names they had.
        changes (tuple[str, ...]): What else was changed, in words.
    """

    tensors: dict[str, Tensor]
    dialect: str
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return '; '.join((f'names of {self.dialect}', *self.changes))


def adapt_input_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Let a convolution that was trained on RGB take another number of channels, as timm's ``adapt_input_conv`` does.

    Args:
        weight (Tensor): (out_channels, 3, kernel, kernel).
        in_channels (int): 1: the sum over RGB, so that a gray image gives what it gave as RGB. More: the three are
            repeated in turn and scaled by 3 / ``in_channels``, which keeps the scale of the output.

    Returns:
        Tensor: (out_channels, in_channels, kernel, kernel), of the same dtype.
    """
    wide = weight.float()
    if in_channels == 1:
        return wide.sum(1, keepdim=True).to(weight)
    wide = wide.repeat(1, math.ceil(in_channels / 3), 1, 1)[:, :in_channels]
    return (wide * (3 / in_channels)).to(weight)


class CheckpointModule(BaseModule):
    """A module whose checkpoints come under several names.

    ``load_state_dict`` keeps torch's contract, here and as a part of any other module: names of other releases are
    translated first, and what is missing or left over is torch's to report. A bare backbone also takes a file's content
    in its wrappers (``state_dict``, ``module.``, ``backbone.``), and a checkpoint of the other form raises an error.
    Where weights are asked for, by
    ``init_cfg`` or through ``fit``, every tensor is filled, or an error lists what is missing.

    Attributes:
        family (Family): The names that the checkpoints come with.
        training_mark, deploy_mark (str): Regular expressions of names that only the training form has, and only the
            deploy form.
        input_layer (str): Name of the convolution that reads the image; '' where its weights are not adapted to
            another number of channels.
    """

    family = Family('backbone', mark=r'(?!)', native='its own class')
    training_mark = deploy_mark = r'(?!)'
    input_layer = ''
    in_channels: int
    num_stages: int
    deploy = False
    init_cfg: dict | list | None
    is_init: bool

    def __init__(self, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        self._register_load_state_dict_pre_hook(self._adapt_state_dict)

    def adapt(self, tensors: Mapping[str, Tensor]) -> Adapted:
        """Translate a checkpoint; the module and the tensors given stay as they are.

        Args:
            tensors (Mapping[str, Tensor]): All or some of the module's tensors, by their names in it, in any dialect.

        Returns:
            Adapted: The tensors under the module's names, whose names they had, and what else was changed.

        Raises:
            CheckpointError: They are of a form or a size that cannot be adapted.
        """
        dialect = self.family.dialect_of(tensors)
        tensors = dialect.convert(tensors) if dialect else dict(tensors)
        self._check_form(tensors)
        changes = []
        name = f'{self.input_layer}.weight'
        weight = tensors.get(name)
        if weight is not None and weight.ndim == 4 and weight.shape[1] == 3 != self.in_channels:
            tensors[name] = adapt_input_weight(weight, self.in_channels)
            changes.append(f'{name} adapted from 3 to {self.in_channels} channels')
        return Adapted(tensors, dialect.name if dialect else self.family.native, tuple(changes))

    def _check_form(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise ``CheckpointError`` where a checkpoint and the module are of different forms."""
        name = type(self).__name__
        trained, folded = (any(re.search(m, key) for key in tensors) for m in (self.training_mark, self.deploy_mark))
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

    def _adapt_state_dict(self, state_dict: dict, prefix: str, *_: object) -> None:
        """Translate this module's part of a state dict in place; torch calls it before it loads."""
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        own = given if prefix else _unwrap(given)
        adapted = self.adapt(own)
        translated = adapted.dialect != self.family.native or bool(adapted.changes)
        if own is given and not translated:
            return
        for key in given:
            del state_dict[prefix + key]
        state_dict.update({prefix + key: value for key, value in adapted.tensors.items()})
        if translated:
            print_log(f'{type(self).__name__}: {adapted}', logger='current')

    def fit(self, tensors: Mapping[str, Tensor], source: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Translate a checkpoint, and make sure that it fills the module.

        Args:
            tensors (Mapping[str, Tensor]): As for ``adapt``.
            source (object): Where they are from, for messages.

        Returns:
            tuple[dict, dict]: The whole state dict of the module, and what the module has no place for.

        Raises:
            CheckpointError: A tensor is missing, has another shape, or belongs to a deeper model.
        """
        adapted = self.adapt(tensors)
        name, loaded = type(self).__name__, adapted.tensors
        own = {key: value for key, value in self.state_dict().items() if isinstance(value, Tensor)}
        rest = {key: value for key, value in loaded.items() if key not in own}
        missing = sorted(key for key in own.keys() - loaded.keys() if not self._may_be_missing(key))
        wrong = [
            f'{key}: {tuple(loaded[key].shape)} in the file, {tuple(value.shape)} in the model'
            for key, value in own.items()
            if key in loaded and loaded[key].shape != value.shape
        ]
        wrong += [f'{key}: beyond the depth of the model' for key in sorted(rest) if self._is_deeper(key)]
        if missing or wrong:
            raise CheckpointError(
                f'{source} does not fill this {name} (is it another arch?). Names: {adapted.dialect}\n'
                f'  missing ({len(missing)}): {shorten(missing)}\n'
                f'  of another shape ({len(wrong)}): {shorten(wrong)}\n'
                f'  in the file but not in the backbone ({len(rest)}): {shorten(sorted(rest))}'
            )
        print_log(
            f'{name}: {len(own.keys() & loaded.keys())} tensors filled from {source}, {adapted}', logger='current'
        )
        return {key: loaded.get(key, value) for key, value in own.items()}, rest

    def _may_be_missing(self, name: str) -> bool:
        """Whether a checkpoint may come without this tensor, whose initial value changes nothing."""
        return name.endswith('num_batches_tracked')  # absent from very old files, and from PaddlePaddle's

    def _is_deeper(self, name: str) -> bool:
        """Whether a tensor belongs to a block behind the last one that this module has."""
        module: nn.Module = self
        for depth, part in enumerate(name.split('.')):
            if isinstance(module, (nn.ModuleList, nn.Sequential)) and part.isdecimal() and int(part) >= len(module):
                # The outermost list may be shorter than the arch: out_indices needs no more.
                return depth > 1 or int(part) >= self.num_stages
            child = module._modules.get(part)
            if child is None:
                return False
            module = child
        return False

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``; without one the values set at construction stay.

        Raises:
            CheckpointError: A pretrained checkpoint does not fill every tensor of the backbone, or is not one.
        """
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else list(self.init_cfg or [])
        pretrained = [cfg for cfg in cfgs if isinstance(cfg, dict) and cfg.get('type') == 'Pretrained']
        if not pretrained or self.is_init:
            return super().init_weights()
        given, self.init_cfg = self.init_cfg, [cfg for cfg in cfgs if cfg not in pretrained] or None
        try:
            if self.init_cfg:
                super().init_weights()
            for cfg in pretrained:
                self._load_pretrained(**{key: value for key, value in cfg.items() if key != 'type'})
            self.is_init = True
        except BaseException:
            self.is_init = False
            raise
        finally:
            self.init_cfg = given

    def _load_pretrained(self, checkpoint: str | Path, prefix: str | None = None, map_location: str = 'cpu') -> None:
        tensors = _bare(state_dict_of(read_checkpoint(checkpoint), checkpoint), prefix)
        filled, rest = self.fit(tensors, checkpoint)
        if rest:
            print_log(f'not part of the backbone and left out: {shorten(sorted(rest))}', logger='current')
        for key, value in self.state_dict().items():  # load_state_dict would adapt them again
            if key in filled:
                value.copy_(filled[key])


def fit_model(model: nn.Module, tensors: Mapping[str, Tensor], source: object = 'the checkpoint') -> dict[str, Tensor]:
    """Let a checkpoint fit a framework's model that holds one of our backbones; a pure function.

    A bare backbone or an original classifier, without the backbone's name in its names, becomes one of the framework:
    the original's head becomes ``head.fc`` where the model has one of that shape. What is dropped is named in the log.

    Args:
        model (nn.Module): Of mmpretrain, mmdet or mmseg.
        tensors (Mapping[str, Tensor]): What ``state_dict_of`` gave.
        source (object): Where they are from, for messages.

    Returns:
        dict[str, Tensor]: Under the model's names, without tensors of other shapes than the model's.

    Raises:
        CheckpointError: One of our backbones is not filled, or the checkpoint is bare and there are several.
    """
    backbones = {f'{name}.': m for name, m in model.named_modules() if name and isinstance(m, CheckpointModule)}
    if not backbones:
        return dict(tensors)
    own, prefixes = model.state_dict(), tuple(backbones)
    bare = not any(key.startswith(prefixes) for key in tensors)
    if bare and len(backbones) > 1:
        names = ', '.join(prefix.rstrip('.') for prefix in backbones)
        raise CheckpointError(f'{source} is of one backbone, the model has {names}: load it into one of them')
    if bare:
        ((prefix, backbone),) = backbones.items()
        filled, rest = backbone.fit(tensors, source)
        fitted = {prefix + key: value for key, value in filled.items()}
        for key, value in rest.items():
            renamed = re.sub(r'^head\.(weight|bias)$', r'head.fc.\1', key)
            fitted[renamed if renamed in own else key] = value
    else:
        fitted = {key: value for key, value in tensors.items() if not key.startswith(prefixes)}
        for prefix, backbone in backbones.items():
            filled, rest = backbone.fit(_below(tensors, prefix), source)
            fitted |= {prefix + key: value for key, value in (filled | rest).items()}
    dropped = {
        key: value.shape
        for key, value in fitted.items()
        if (key in own and own[key].shape != value.shape) or (bare and key not in own)
    }
    if dropped:
        said = [
            f'{key} {tuple(shape)} '
            + (f'for {tuple(own[key].shape)}' if key in own else 'which the model does not have')
            for key, shape in dropped.items()
        ]
        print_log(f'dropped from {source}: {shorten(said)}', logger='current', level=logging.WARNING)
    return {key: value for key, value in fitted.items() if key not in dropped}


def shorten(names: Sequence[str], most: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    listed = ', '.join(names[:most]) or 'none'
    return listed + (f', and {len(names) - most} more' if len(names) > most else '')


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _bare(tensors: Mapping[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    """The backbone's tensors of a checkpoint; ``prefix`` is removed, by default ``backbone.`` where there is one."""
    if prefix is None and not any(key.startswith('backbone.') for key in tensors):
        return dict(tensors)
    return _below(tensors, (prefix or 'backbone').rstrip('.') + '.')


def _unwrap(content: dict) -> dict:
    """What ``load_state_dict`` of a bare backbone was given, out of the wrappers of a file and without ``backbone.``"""
    wrapped = any(isinstance(value, Mapping) for value in content.values())
    wrapped = wrapped or any(key.startswith(('module.', '_orig_mod.', 'backbone.')) for key in content)
    return _bare(state_dict_of(content)) if wrapped else content
