"""A stop before NaN reaches a checkpoint."""

import torch
from mmengine.hooks import Hook

from ...datasets.validation.files import listed
from ...registry import HOOKS
from ...utils.errors import InvalidState
from .checkpoint import last_good


@HOOKS.register_module()
class StopAtNonFiniteHook(Hook):
    """Stop a run whose loss or weights are NaN or infinite, before they reach a checkpoint.

    Raises:
        RuntimeError: Naming the iteration, the images of the batch and the last good checkpoint.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        bad = [k for k, v in (outputs or {}).items() if 'loss' in k and not torch.isfinite(torch.as_tensor(v)).all()]
        if bad:
            samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
            images = [str(getattr(s, 'img_path', '')) for s in samples]
            raise InvalidState(
                f'{", ".join(bad)} not finite at iteration {runner.iter + 1} (epoch {runner.epoch + 1}), on:\n  '
                + '\n  '.join(images or ['images without a path'])
                + f'\n{last_good(runner)}. A lower learning rate, clip_grad or bfloat16 instead of float16 may help'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        tensors = {name: value for name, value in checkpoint['state_dict'].items() if torch.is_tensor(value)}
        bad = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
        if bad:
            raise InvalidState(
                f'{listed(bad)} not finite at iteration {runner.iter + 1}: nothing was saved; {last_good(runner)}'
            )
