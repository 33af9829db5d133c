"""The backbone under ``torch.compile``."""

import torch
from mmengine.hooks import Hook

from ...registry import HOOKS
from .adapt_checkpoint import unwrapped


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the backbone with ``torch.compile``. mmengine's own ``compile`` takes the whole training step, in which
    detectors change their shapes all the time and torch 2.10 fails on mixup.
    """

    def before_train(self, runner) -> None:
        backbone = unwrapped(runner.model).backbone
        backbone.forward = torch.compile(backbone.forward)
        runner.logger.info('The backbone is compiled: the first iterations take longer.')
