"""Batches whose contents depend on the seed and on their position alone, so that a resumed run is the unbroken one."""

import functools
import random
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, get_worker_info

from ..registry import DATA_SAMPLERS
from ..utils.errors import DataError

INTERRUPTS = [getattr(signal, name) for name in ('SIGINT', 'SIGUSR1') if hasattr(signal, name)]
"""The signals that ask a run to save and stop; Windows has no SIGUSR1."""


def seed_everything(*key: int) -> None:
    """Seed Python's, numpy's and torch's global generators with a hash of some numbers."""
    python, numpy, *torch_ = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(python))
    np.random.seed(numpy)
    torch.manual_seed(int(torch_[0]) << 32 | int(torch_[1]))


def _seeded_items(dataset, places: list[tuple[int, tuple[int, ...]]]) -> list[Any]:
    """Return samples of a dataset by their indices, each augmented with a seed of its own."""
    if get_worker_info() is not None:
        # A signal goes to all processes of a terminal or a job; a worker that one ends would take the run along.
        # mmengine's loop over iterations starts its workers before any hook can set handlers for them to inherit.
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_IGN)
    items = []
    for index, key in places:
        seed_everything(*key)
        items.append(dataset[index])
    return items


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler:
    """The batches of another batch sampler, which can begin in the middle of an epoch.

    Every sample's augmentation is seeded with the sampler's seed, the epoch and the sample's position in it, whichever
    worker loads it and however often the run was broken off before; for that the dataset gets a ``__getitems__``, which
    torch's loader calls with a batch. mmengine seeds its workers once instead, and begins an epoch anew.

    Args:
        sampler (Sampler): mmengine's, with a ``dataset`` and a ``seed``; an epoch of its own where it has one.
        batch_size (int): Samples in a batch of one process.
        batch_sampler (dict, optional): Config of the batch sampler to wrap, such as mmdet's AspectRatioBatchSampler.
            Defaults to None, plain batches.
        drop_last (bool): Leave an incomplete last batch out; of plain batches. Defaults to False.

    Raises:
        DataError: An epoch has no batch.
    """

    def __init__(self, sampler, batch_size: int, batch_sampler: dict | None = None, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.inner = batch_sampler
        self.start_at(0)
        # torch asks a dataset for a whole batch where it has this method; so the seeding happens in the workers.
        sampler.dataset.__getitems__ = functools.partial(_seeded_items, sampler.dataset)
        if not isinstance(sampler, InfiniteSampler) and len(self) == 0:  # the run would end at once, without a message
            raise DataError(
                f'no batch to train on: {len(sampler)} images in each process, batch_size={batch_size} and '
                f'drop_last={drop_last}. Set a smaller train_dataloader.batch_size, or '
                'train_dataloader.batch_sampler.drop_last=False'
            )

    def start_at(self, skip: int) -> None:
        """Begin the next epoch, or an endless sampler's stream, after so many batches, without loading them."""
        self.skip = skip
        if isinstance(self.sampler, InfiniteSampler):  # it keeps its place; back to the start
            self.sampler.indices = self.sampler._indices_of_rank()
        # Anew, since some keep samples for a later batch.
        if self.inner is None:
            self.batches = BatchSampler(self.sampler, self.batch_size, self.drop_last)
        else:
            settings = dict(sampler=self.sampler, batch_size=self.batch_size)
            self.batches = DATA_SAMPLERS.build(self.inner, default_args=settings)

    def __iter__(self) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        sampler, skip, self.skip = self.sampler, self.skip, 0
        rank, epoch, position = getattr(sampler, 'rank', 0), getattr(sampler, 'epoch', 0), 0
        for number, batch in enumerate(self.batches):
            if number >= skip:
                yield [(index, (sampler.seed, epoch, position + n, rank)) for n, index in enumerate(batch)]
            position += len(batch)

    def __len__(self) -> int:
        return len(self.batches)
