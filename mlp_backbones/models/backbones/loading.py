"""From a checkpoint's tensors to a model's, in steps that each begin with the one before.

1. ``Family.translate`` gives tensors our names.
2. ``CheckpointModule.adapt`` gives them the module's shapes too; ``load_state_dict`` of torch begins with it.
3. ``CheckpointModule.fit`` makes sure that they fill the module; ``init_cfg`` copies what it returns.
4. ``fit_model`` does so for the backbones of a framework's model; ``load_from`` goes on with mmengine's loading.
5. ``fill_model`` loads them, for ``get_model`` and the tools.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from torch import Tensor, nn

from ...checkpoints import CheckpointError, Family, read_checkpoint, state_dict_of
from ...checkpoints.dialects import HEAD


def adapt_input_weight(weight: Tensor, in_channels: int) -> Tensor:
    """Let the weight of a convolution of RGB, (C, 3, k, k), take other channels, as timm's ``adapt_input_conv`` does.

    One channel gets the sum over RGB, so that a gray image gives what it gave as RGB. For more, the three are repeated
    in turn and scaled by 3 / ``in_channels``, which keeps the scale of the output.
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
    Where weights are asked for, by ``init_cfg`` or through ``fit``, every tensor is filled, or an error lists what is
    missing.

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
    init_cfg: Any
    is_init: bool

    def __init__(self, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        self._register_load_state_dict_pre_hook(self._adapt_state_dict)

    def adapt(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Return a checkpoint's tensors under the module's names, and in words: whose names they had, what was changed.

        All or some of the module's tensors are taken, in any dialect; what it does not have stays among them. The
        module and the tensors given stay as they are.

        Raises:
            CheckpointError: They are of a form or a size that cannot be adapted.
        """
        tensors, dialect = self.family.translate(tensors)
        self._check_form(tensors)
        notes = [dialect]
        name = f'{self.input_layer}.weight'
        weight = tensors.get(name)
        if weight is not None and weight.ndim == 4 and weight.shape[1] == 3 != self.in_channels:
            tensors[name] = adapt_input_weight(weight, self.in_channels)
            notes.append(f'{name} adapted from 3 to {self.in_channels} channels')
        return tensors, notes

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
        """Adapt this module's part of a state dict in place; torch calls it before it loads."""
        given = {key: value for key, value in state_dict.items() if key.startswith(prefix)}
        adapted, notes = self.adapt(_below(given, prefix) if prefix else _unwrap(given))
        for key in given:
            del state_dict[key]
        state_dict.update({prefix + key: value for key, value in adapted.items()})
        if notes != [self.family.native]:
            print_log(f'{type(self).__name__}: names of {"; ".join(notes)}', logger='current')

    def fit(self, tensors: Mapping[str, Tensor], source: object) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the whole state dict of the module from a checkpoint, and what the module has no place for.

        The tensors are as for ``adapt``; ``source`` is where they are from, for messages.

        Raises:
            CheckpointError: A tensor is missing, has another shape, or belongs to a deeper model.
        """
        loaded, notes = self.adapt(tensors)
        name, own = type(self).__name__, self.state_dict()
        rest = {key: value for key, value in loaded.items() if key not in own}
        missing = sorted(key for key in own.keys() - loaded.keys() if not self._may_be_missing(key))
        wrong = [
            f'{key}: {tuple(loaded[key].shape)} in the file, {tuple(value.shape)} in the model'
            for key, value in own.items()
            if key in loaded and loaded[key].shape != value.shape
        ]
        wrong += [f'{key}: beyond the depth of the model' for key in self._deeper(sorted(rest))]
        if missing or wrong:
            raise CheckpointError(
                f'{source} does not fill this {name} (is it another arch?). Names: {notes[0]}\n'
                f'  missing ({len(missing)}): {shorten(missing)}\n'
                f'  of another shape ({len(wrong)}): {shorten(wrong)}\n'
                f'  in the file but not in the backbone ({len(rest)}): {shorten(sorted(rest))}'
            )
        filled = len(own.keys() & loaded.keys())
        print_log(f'{name}: {filled} tensors filled from {source}, names of {"; ".join(notes)}', logger='current')
        return {key: loaded.get(key, value) for key, value in own.items()}, rest

    def _may_be_missing(self, name: str) -> bool:
        """Return whether a checkpoint may come without this tensor, whose initial value changes nothing."""
        return name.endswith('num_batches_tracked')  # absent from very old files, and from PaddlePaddle's

    def _deeper(self, names: Sequence[str]) -> list[str]:
        """Return the tensors that belong to a block behind the last one that this module has."""
        lists = {name: len(m) for name, m in self.named_modules() if isinstance(m, (nn.ModuleList, nn.Sequential))}
        # The outermost list may be shorter than the arch: out_indices needs no more.
        lists |= {name: self.num_stages for name in lists if '.' not in name}

        def is_deeper(name: str) -> bool:
            blocks = re.finditer(r'\.(\d+)(?=\.)', name)
            return any(int(block[1]) >= lists.get(name[: block.start()], math.inf) for block in blocks)

        return list(filter(is_deeper, names))

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``; without one the values set at construction stay.

        Raises:
            CheckpointError: A pretrained checkpoint does not fill every tensor of the backbone, or is not one.
        """
        given = self.init_cfg
        cfgs = given if isinstance(given, list) else [given]
        pretrained = [cfg for cfg in cfgs if isinstance(cfg, dict) and _is_pretrained(cfg.get('type'))]
        if not pretrained or self.is_init:
            return super().init_weights()
        filled: dict[str, Tensor] = {}
        for cfg in pretrained:
            filled |= self._read_pretrained(**{key: value for key, value in cfg.items() if key != 'type'})
        self.init_cfg = [cfg for cfg in cfgs if cfg not in pretrained]
        if self.init_cfg:
            super().init_weights()
        self.init_cfg, self.is_init = given, True
        for key, value in self.state_dict().items():  # load_state_dict would adapt them again
            value.copy_(filled[key])

    def _read_pretrained(
        self, checkpoint: str | Path, prefix: str | None = None, map_location: str = 'cpu'
    ) -> dict[str, Tensor]:
        """Return the state dict that a 'Pretrained' of ``init_cfg`` asks for."""
        tensors = _bare(state_dict_of(read_checkpoint(checkpoint), checkpoint), prefix)
        filled, rest = self.fit(tensors, checkpoint)
        if rest:
            print_log(f'not part of the backbone and left out: {shorten(sorted(rest))}', logger='current')
        return filled


def _is_pretrained(kind: object) -> bool:
    """Return whether the type in an ``init_cfg`` is mmengine's 'Pretrained', as a class or by its name."""
    return kind is PretrainedInit or (isinstance(kind, str) and kind.rpartition('.')[2] == 'Pretrained')


def fit_model(model: nn.Module, tensors: Mapping[str, Tensor], source: object = 'the checkpoint') -> dict[str, Tensor]:
    """Return a checkpoint's tensors under the names of a framework's model, without those of other shapes.

    A bare backbone or an original classifier, without the backbone's name in its names, becomes one of the framework:
    the original's head becomes ``head.fc`` where the model has one. What is dropped is named in the log. ``source`` is
    where the tensors are from, for messages.

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
    fitted = {} if bare else {key: value for key, value in tensors.items() if not key.startswith(prefixes)}
    for prefix, backbone in backbones.items():
        filled, rest = backbone.fit(tensors if bare else _below(tensors, prefix), source)
        fitted |= {prefix + key: value for key, value in filled.items()}
        for key, value in rest.items():
            name = HEAD[key] if HEAD.get(key) in own else key
            fitted[name if bare else prefix + key] = value
    dropped = []
    for key, value in list(fitted.items()):
        if key in own and own[key].shape != value.shape:
            dropped.append(f'{key} {tuple(value.shape)} for {tuple(own[key].shape)}')
            del fitted[key]
        elif bare and key not in own:
            dropped.append(f'{key} {tuple(value.shape)} which the model does not have')
            del fitted[key]
    if dropped:
        print_log(f'dropped from {source}: {shorten(dropped)}', logger='current', level=logging.WARNING)
    return fitted


def fill_model(model: nn.Module, content: Any, source: str | Path, strict: bool = False) -> None:
    """Load what ``read_checkpoint`` returned for ``source`` into a framework's model.

    Its backbone must be filled, and with ``strict`` the whole model, by these tensors and no others.

    Raises:
        CheckpointError: The weights do not fill the backbone, or, with ``strict``, the model.
    """
    from mmengine.runner.checkpoint import load_state_dict

    tensors = fit_model(model, state_dict_of(content, source), source)
    if not strict:
        load_state_dict(model, tensors, strict=False)  # mmengine's, which logs what a head or a neck lacks
        return
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        beside = sorted(map(str, Path(source).parent.glob('*.py'))) if Path(source).is_file() else []
        hint = (
            f'\nIs the config that it was trained with among the files beside it? {shorten(beside)}' if beside else ''
        )
        raise CheckpointError(f'{source} does not fill the model: {error}{hint}') from error


def shorten(names: Sequence[str], most: int = 8) -> str:
    """Return the first names of a list, and how many more there are."""
    listed = ', '.join(names[:most]) or 'none'
    return listed + (f', and {len(names) - most} more' if len(names) > most else '')


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _bare(tensors: Mapping[str, Tensor], prefix: str | None = None) -> dict[str, Tensor]:
    """Return the backbone's tensors without their ``prefix``, by default ``backbone.`` where some have it."""
    if prefix is None and not any(key.startswith('backbone.') for key in tensors):
        return dict(tensors)
    return _below(tensors, (prefix or 'backbone').rstrip('.') + '.')


def _unwrap(content: dict) -> dict:
    """Return what ``load_state_dict`` of a bare backbone was given, out of a file's wrappers, without ``backbone.``"""
    wrapped = any(isinstance(value, Mapping) for value in content.values())
    wrapped = wrapped or any(key.startswith(('module.', '_orig_mod.', 'backbone.')) for key in content)
    return _bare(state_dict_of(content)) if wrapped else content
