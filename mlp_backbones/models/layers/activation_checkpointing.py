"""Activation checkpointing that leaves the statistics of BatchNorm alone."""

import contextlib
from collections.abc import Callable
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


def _checkpoint(function: Callable[..., Tensor], module: nn.Module, *inputs: Tensor) -> Tensor:
    """Call a function of ``module``, now and, with the same random numbers, in the backward pass."""
    kwargs: dict[str, Any] = {}
    # torch.compile does without the context.
    if any(isinstance(m, _BatchNorm) and m.training for m in module.modules()):
        kwargs['context_fn'] = lambda: (contextlib.nullcontext(), _statistics_untouched(module))
    return torch.utils.checkpoint.checkpoint(function, *inputs, use_reentrant=False, **kwargs)


def recompute_activations(function: Callable[..., Tensor], module: nn.Module, *inputs: Tensor) -> Tensor:
    """Return ``function(*inputs)``; what it computes for its last product is computed again in the backward pass.

    The product itself is not: the recomputation ends with what the last layer keeps, its input. So for cheap layers
    before a linear layer or a convolution this saves memory at almost no cost. Compiled code decides by itself what to
    keep.

    Args:
        function (Callable): Layers.
        module (nn.Module): What they are part of.
        *inputs (Tensor): What is kept.
    """
    if not torch.is_grad_enabled() or torch._dynamo.is_compiling():
        return function(*inputs)
    return _checkpoint(function, module, *inputs)


class Recomputed(nn.Module):
    """A block whose activations, with ``with_cp``, are computed again in the backward pass instead of being kept.

    Outputs, gradients and BatchNorm's running statistics are the same. A subclass implements ``_forward``;
    ``BaseBackbone._finish`` sets ``with_cp``.
    """

    with_cp = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.with_cp or not torch.is_grad_enabled():
            return self._forward(x)
        return _checkpoint(self._forward, self, x)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError
