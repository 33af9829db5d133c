"""``load_from`` for checkpoints of any release."""

import re
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import CheckpointLoader

from ...checkpoints import read_checkpoint, state_dict_of
from ...models.backbones.loading import fit_model
from ...registry import HOOKS


def unwrapped(model: Any) -> Any:
    """Return the framework's model within the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Let ``load_from`` take a checkpoint of any release, and refuse one that does not fill the backbone.

    The file is read by ``read_checkpoint``, as that of the backbone's ``init_cfg`` is. A runner's own checkpoint that
    is resumed stays as it is, and so do those of FlexibleRunner, whose strategies may have split the model.

    Raises:
        CheckpointError: The file cannot be read, or a tensor of one of our backbones is missing or has another shape.
    """

    priority = 'VERY_HIGH'  # before the moving average copies what was loaded

    def before_run(self, runner) -> None:
        source = runner._load_from
        if source and not runner._resume and not re.match(r'(?!https?:)\w+:', source):  # other schemes are mmengine's
            # mmengine's schemes are patterns, the longest first: this one is of one file.
            CheckpointLoader.register_scheme(
                prefixes=re.escape(source) + '$',
                loader=lambda filename, map_location=None: read_checkpoint(filename),
                force=True,
            )

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if runner._resume or hasattr(runner, 'strategy'):
            return
        source = runner._load_from or 'the checkpoint'
        checkpoint['state_dict'] = fit_model(unwrapped(runner.model), state_dict_of(checkpoint, source), source)
