"""Activation checkpointing that leaves the statistics of BatchNorm alone."""

import contextlib
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def _statistics_untouched(module: nn.Module):
    """Keep BatchNorm from counting a batch a second time while a checkpoint recomputes it."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()  # SyncBN wants one
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept):
            norm.momentum, norm.num_batches_tracked = momentum, counter


class Recomputed(nn.Module):
    """A block whose activations, with ``with_cp``, are computed again in the backward pass instead of being kept.

    Outputs, gradients and BatchNorm's running statistics are the same. A subclass implements ``_forward``;
    ``BaseBackbone._finish`` sets ``with_cp``.
    """

    with_cp = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.with_cp or not torch.is_grad_enabled():
            return self._forward(x)
        kwargs: dict[str, Any] = {}
        # torch.compile does without the context.
        if any(isinstance(m, _BatchNorm) and m.training for m in self.modules()):
            kwargs['context_fn'] = lambda: (contextlib.nullcontext(), _statistics_untouched(self))
        return torch.utils.checkpoint.checkpoint(self._forward, x, use_reentrant=False, **kwargs)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError
