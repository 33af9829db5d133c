"""Batches whose contents depend on the seed and on their position alone, so that a resumed run is the unbroken one."""

import copy
import functools
import itertools
import os
import random
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, Sampler, get_worker_info

from ..registry import DATA_SAMPLERS
from ..utils.errors import DataError

INTERRUPTS = [getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name)]
"""The signals that ask a run to save and stop; Windows has no SIGUSR1."""


def seed_everything(*key: int) -> None:
    """Seed Python's, numpy's and torch's global generators with a hash of some numbers."""
    python, numpy, *torch_ = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(python))
    np.random.seed(numpy)
    torch.manual_seed(int(torch_[0]) << 32 | int(torch_[1]))


@functools.cache
def leave_interrupts_to_the_run(pid: int) -> None:
    """Let a worker, of that process, pass over the signals that ask a run to stop, and end at its parent's SIGTERM.

    A signal goes to all processes of a terminal or a job; a worker that one ends would take the run along. mmengine's
    loop over iterations starts its workers before any hook can set handlers for them to inherit.
    """
    for number in INTERRUPTS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # which alone says who has sent a signal; macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_at_terminate, daemon=True).start()


def _end_at_terminate() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _seeded_items(dataset, places: list[tuple[int, tuple[int, ...]]]) -> list[Any]:
    """Return samples of a dataset by their indices, each augmented with a seed of its own."""
    if get_worker_info() is not None:
        leave_interrupts_to_the_run(os.getpid())
    items = []
    for index, key in places:
        seed_everything(*key)
        items.append(dataset[index])
    return items


class Part(NamedTuple):
    """Batches that each of some processes has taken of an epoch."""

    batches: int
    batch_size: int
    world_size: int


class _Place(int):
    """An index of a dataset, with its position in the order in which all processes together take the samples."""

    position: int

    def __new__(cls, index: int, position: int) -> '_Place':
        place = super().__new__(cls, index)
        place.position = position
        return place


class _Stream(Sampler):
    """Some samples in place of a sampler, for a batch sampler that asks it for the dataset."""

    def __init__(self, dataset, places: Iterable[_Place]) -> None:
        self.dataset, self.places = dataset, places

    def __iter__(self) -> Iterator[_Place]:
        return iter(self.places)


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler:
    """The batches of another batch sampler, which can begin in the middle of an epoch.

    Every sample's augmentation is seeded with the sampler's seed, the epoch and the sample's position in it, whichever
    process and worker loads it and however often the run was broken off before; for that the dataset gets a
    ``__getitems__``, which torch's loader calls with a batch. mmengine seeds its workers once instead, and begins an
    epoch anew.

    Args:
        sampler (Sampler): mmengine's, with a ``dataset`` and a ``seed``; an epoch of its own where it has one. Of
            several processes, each takes every so-many-th sample of one order, from its rank on.
        batch_size (int): Samples in a batch of one process.
        batch_sampler (dict, optional): Config of the batch sampler to wrap, such as mmdet's AspectRatioBatchSampler.
            Defaults to None, plain batches.
        drop_last (bool): Leave an incomplete last batch out. Defaults to False, or what ``batch_sampler`` says.

    Raises:
        DataError: An epoch has no batch.
    """

    def __init__(self, sampler, batch_size: int, batch_sampler: dict | None = None, drop_last: bool = False) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.inner = batch_sampler
        self.rank, self.world_size = getattr(sampler, 'rank', 0), getattr(sampler, 'world_size', 1)
        self.start_at()
        # torch asks a dataset for a whole batch where it has this method; so the seeding happens in the workers.
        sampler.dataset.__getitems__ = functools.partial(_seeded_items, sampler.dataset)
        if not isinstance(sampler, InfiniteSampler) and len(self) == 0:  # the run would end at once, without a message
            raise DataError(
                f'no batch to train on: {len(sampler)} images in each process, batch_size={batch_size} and '
                'drop_last=True. Set a smaller train_dataloader.batch_size, or '
                f'train_dataloader.batch_sampler{"" if drop_last else ".batch_sampler"}.drop_last=False'
            )

    def start_at(self, parts: Sequence[Part] = ()) -> None:
        """Begin the next epoch, or an endless sampler's stream, behind what was taken of it, without loading that.

        Args:
            parts (Sequence[Part]): What runs have taken, one after the other. Defaults to nothing.
        """
        self.parts = list(parts)

    def part(self, batches: int) -> Part:
        """Return what so many batches of each process of this run are."""
        return Part(batches, self.batch_size, self.world_size)

    def _indices(self, rank: int) -> Iterator[int]:
        """Yield what the sampler gives a process, from the start."""
        sampler = copy.copy(self.sampler)
        if hasattr(sampler, 'rank'):
            sampler.rank = rank
        if isinstance(sampler, InfiniteSampler):  # it keeps its place
            sampler.indices = sampler._indices_of_rank()
        return iter(sampler)

    def _batches(self, sampler, batch_size: int) -> Any:
        if self.inner is None:
            return BatchSampler(sampler, batch_size, self.drop_last)
        settings = dict(sampler=sampler, batch_size=batch_size)
        if self.drop_last:
            settings['drop_last'] = True
        return DATA_SAMPLERS.build(self.inner, default_args=settings)

    def _batches_of(self, places: Iterable[_Place], batch_size: int) -> Any:
        return self._batches(_Stream(self.sampler.dataset, places), batch_size)

    def _left(self) -> Iterator[_Place]:
        """Yield this process's share of what is left of the epoch; all shares are of one size."""
        everything = itertools.chain.from_iterable(zip(*map(self._indices, range(self.world_size))))
        (order,) = itertools.tee(map(_Place, everything, itertools.count()), 1)
        taken = set[int]()

        def left() -> Iterator[_Place]:
            return (place for place in copy.copy(order) if place.position not in taken)

        for part in self.parts:
            (rest,) = itertools.tee(left(), 1)
            shares = [itertools.islice(copy.copy(rest), rank, None, part.world_size) for rank in range(part.world_size)]
            batches = [list(itertools.islice(self._batches_of(s, part.batch_size), part.batches)) for s in shares]
            taken |= {place.position for share in batches for batch in share for place in batch}
        repeated = itertools.chain.from_iterable(left() for _ in range(self.world_size + 1))  # few may be left for many
        share = itertools.islice(repeated, self.rank, None, self.world_size)
        if isinstance(self.sampler, InfiniteSampler):
            return share
        total = len(self.sampler) * self.world_size
        return itertools.islice(share, -((len(taken) - total) // self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, tuple[int, ...]]]]:
        places: Iterator[_Place] = map(_Place, self._indices(self.rank), itertools.count(self.rank, self.world_size))
        done = sum(part.batches for part in self.parts)
        if any(part != self.part(part.batches) for part in self.parts):
            places, done = self._left(), 0
        self.start_at()
        seed, epoch = self.sampler.seed, getattr(self.sampler, 'epoch', 0)
        for batch in itertools.islice(self._batches_of(places, self.batch_size), done, None):
            yield [(int(place), (seed, epoch, place.position)) for place in batch]

    def __len__(self) -> int:
        return len(self._batches(self.sampler, self.batch_size))
