"""Batches that begin in the middle are those of an unbroken run."""

import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from mlp_backbones.datasets.samplers import Part, ResumableBatchSampler
from mlp_backbones.engine.hooks.exact_resume import Batches
from mlp_backbones.utils.errors import DataError


class Numbers:
    """What augmentation would draw, beside the index; images are as wide as high or twice as wide."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))

    def get_data_info(self, index):
        return dict(width=10 if index % 3 else 20, height=15)


def loader(sampler, inner=None, workers=0, rank=0, world_size=1, batch_size=2):
    kind = dict(default=DefaultSampler, endless=InfiniteSampler)[sampler]
    made = kind(Numbers(), seed=5)
    made.rank, made.world_size = rank, world_size
    if sampler == 'default':
        made.num_samples = -(-len(Numbers()) // world_size)
        made.total_size = made.num_samples * world_size
    batches = ResumableBatchSampler(made, batch_size, inner)
    return DataLoader(batches.sampler.dataset, batch_sampler=batches, num_workers=workers, collate_fn=list)


def batches_from(loader, done):
    """The batches of a loop that has done some iterations in a run of this size."""
    epoch, batch = (0, done) if isinstance(loader.batch_sampler.sampler, InfiniteSampler) else divmod(done, len(loader))
    batches = Batches(loader, epoch, [Part(batch, 2, 1)])
    while True:
        yield next(batches)


def taken(stream, number):
    return [next(stream) for _ in range(number)]


INNER = [None, dict(type='mmdet.AspectRatioBatchSampler')]


@pytest.mark.parametrize('inner', INNER, ids=['plain', 'by aspect ratio'])
@pytest.mark.parametrize('sampler', ['default', 'endless'])
@pytest.mark.parametrize('done', [0, 3, 6, 7, 14])
def test_iterations(sampler, inner, done):
    """Over the end of the data too, and after batches were begun and given up, as mmengine's first iterator does."""
    if inner:
        pytest.importorskip('mmdet.datasets')
    unbroken = taken(batches_from(loader(sampler, inner), 0), done + 4)
    again = loader(sampler, inner)
    taken(iter(again), 3)
    assert taken(batches_from(again, done), 4) == unbroken[done:]


def test_epochs_and_workers():
    unbroken, resumed = loader('default'), loader('default', workers=2)
    epochs = []
    for epoch in range(3):
        unbroken.batch_sampler.sampler.set_epoch(epoch)
        epochs.append(list(unbroken))
    assert len({str(e) for e in epochs}) == 3
    resumed.batch_sampler.sampler.set_epoch(1)
    resumed.batch_sampler.start_at([Part(4, 2, 1)])
    assert list(resumed) == epochs[1][4:]
    resumed.batch_sampler.sampler.set_epoch(2)
    assert list(resumed) == epochs[2]


def together(sampler, parts, batch_size, world_size, number, inner=None):
    """What all processes of a run take from there on: the samples of each iteration."""
    streams = []
    for rank in range(world_size):
        made = loader(sampler, inner, rank=rank, world_size=world_size, batch_size=batch_size)
        made.batch_sampler.start_at(parts)
        streams.append(list(itertools.islice(made, number)))
    assert len({len(stream) for stream in streams}) == 1, 'no process waits for the others'
    return [sorted(sample for batch in batches for sample in batch) for batches in zip(*streams)]


@pytest.mark.parametrize('sampler', ['default', 'endless'])
@pytest.mark.parametrize('world_sizes', [(1, 2), (2, 1), (4, 1), (1, 4)])
def test_more_or_fewer_processes_with_the_same_global_batch(sampler, world_sizes):
    """The same samples in every iteration, with the same augmentation."""
    before, after = world_sizes
    unbroken = together(sampler, [], 4 // before, before, 6)
    for done in range(1, len(unbroken) - 1):
        resumed = together(sampler, [Part(done, 4 // before, before)], 4 // after, after, 6 - done)
        whole = len(unbroken) - done - (sampler == 'default')  # the last iteration may hold samples for the second time
        assert whole > 0 and resumed[:whole] == unbroken[done : done + whole]


@pytest.mark.parametrize('inner', INNER, ids=['plain', 'by aspect ratio'])
@pytest.mark.parametrize(
    'parts, batch_size, world_size',
    [
        ([Part(2, 2, 2)], 1, 1),
        ([Part(1, 3, 2)], 2, 1),
        ([Part(3, 1, 3)], 1, 2),
        ([Part(1, 2, 2), Part(2, 1, 1), Part(1, 1, 2)], 2, 1),
    ],
)
def test_each_sample_once(parts, batch_size, world_size, inner):
    """However often the number of processes and the batch change within an epoch."""
    if inner:
        pytest.importorskip('mmdet.datasets')
    found = []
    for number, part in enumerate(parts):
        found += together('default', parts[:number], part.batch_size, part.world_size, part.batches, inner)
    found = sum(found, [])
    assert len(set(found)) == len(found), 'nothing is taken twice before the end'
    rest = sum(together('default', parts, batch_size, world_size, None, inner), [])
    assert len(rest) - (11 - len(found)) in range(2 * world_size - 1), (
        'at most what makes the shares equal is taken twice'
    )
    assert {index for index, *_ in found + rest} == set(range(11))


@pytest.mark.parametrize('world_size', [2, 5, 11])
def test_fewer_samples_than_processes_are_left(world_size):
    """Each process takes one all the same, or the others would wait for it for ever."""
    rest = together('default', [Part(10, 1, 1)], 2, world_size, None)
    assert [len(iteration) for iteration in rest] == [world_size]


@pytest.mark.parametrize('inner', INNER, ids=['plain', 'by aspect ratio'])
def test_an_incomplete_last_batch_is_left_out(inner):
    if inner:
        pytest.importorskip('mmdet.datasets')
    sampler = DefaultSampler(Numbers(), seed=5)
    sizes = [[len(b) for b in ResumableBatchSampler(sampler, 4, inner, drop_last)] for drop_last in (True, False)]
    assert sizes == [[4, 4], [4, 4, 3]]


def test_no_batch_to_train_on():
    sampler = DefaultSampler(Numbers(), seed=5)
    with pytest.raises(DataError, match=r'no batch to train on: 11 images .* drop_last=True\. Set .*drop_last=False'):
        ResumableBatchSampler(sampler, 100, drop_last=True)
    assert len(ResumableBatchSampler(sampler, 100)) == 1
    pytest.importorskip('mmdet.datasets')
    with pytest.raises(DataError, match=r'Set .* or train_dataloader\.batch_sampler\.batch_sampler\.drop_last=False'):
        ResumableBatchSampler(sampler, 100, dict(type='mmdet.AspectRatioBatchSampler', drop_last=True))
    ResumableBatchSampler(InfiniteSampler(Numbers(), seed=5), 100, drop_last=True)  # goes on from the end to the start
