"""``load_from`` for checkpoints of any release."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper

from ...checkpoints import CheckpointError, state_dict_of
from ...checkpoints.runs import use_safe_reader
from ...models.backbones.loading import fit_model
from ...registry import HOOKS


def unwrapped(model: Any) -> Any:
    """Return the framework's model within the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def _of_another_shape(tensors: dict, model: Any) -> str:
    """Return which of the tensors does not fit what the model trains, or nothing; its optimizer's would not either."""
    for key, value in model.named_parameters():
        there, here = tuple(tensors.get(key, value).shape), tuple(value.shape)
        if value.requires_grad and there != here:
            return f'{key} is of shape {there} there, and {here} in this model'
    return ''


@HOOKS.register_module()
class AdaptCheckpointHook(Hook):
    """Let ``load_from`` take a checkpoint of any release, and refuse one that does not fill the backbone.

    Files are read without running what is in them, for resuming too (``use_safe_reader``). A checkpoint that is resumed
    stays as it is, and so do those of FlexibleRunner, whose strategies may have split the model.

    Raises:
        CheckpointError: The file cannot be read, a tensor of one of our backbones is missing or has another shape, or
            what is to be resumed has no more than weights, or those of another model.
    """

    priority = 'VERY_HIGH'  # before the moving average copies what was loaded

    def before_run(self, runner) -> None:
        use_safe_reader()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        source = runner._load_from or 'the checkpoint'
        if runner._resume:
            parts: dict = checkpoint if isinstance(checkpoint, dict) else {}
            missing = [key for key in ('meta', 'message_hub', 'state_dict') if not isinstance(parts.get(key), dict)]
            reason = f'it has no {", ".join(missing)}' if missing else ''
            if not missing and not hasattr(runner, 'strategy'):
                reason = _of_another_shape(parts['state_dict'], unwrapped(runner.model))
            if reason:
                raise CheckpointError(
                    f'{source} cannot be resumed: {reason}. To start a new run from its weights, use --cfg-options '
                    f'load_from={runner._load_from or "FILE"}'
                )
        elif not hasattr(runner, 'strategy'):
            checkpoint['state_dict'] = fit_model(unwrapped(runner.model), state_dict_of(checkpoint, source), source)
