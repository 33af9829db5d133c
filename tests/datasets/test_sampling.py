"""Batches that begin in the middle are those of an unbroken run."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from mlp_backbones.datasets.samplers import ResumableBatchSampler
from mlp_backbones.engine.hooks.exact_resume import batches_from
from mlp_backbones.utils.errors import DataError


class Numbers:
    """What augmentation would draw, beside the index; images are as wide as high or twice as wide."""

    def __len__(self):
        return 11

    def __getitem__(self, index):
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))

    def get_data_info(self, index):
        return dict(width=10 if index % 3 else 20, height=15)


def loader(sampler, inner=None, workers=0):
    kind = dict(default=DefaultSampler, endless=InfiniteSampler)[sampler]
    batches = ResumableBatchSampler(kind(Numbers(), seed=5), 2, inner)
    return DataLoader(batches.sampler.dataset, batch_sampler=batches, num_workers=workers, collate_fn=list)


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
    resumed.batch_sampler.start_at(4)
    assert list(resumed) == epochs[1][4:]
    resumed.batch_sampler.sampler.set_epoch(2)
    assert list(resumed) == epochs[2]


def test_no_batch_to_train_on():
    sampler = DefaultSampler(Numbers(), seed=5)
    with pytest.raises(DataError, match=r'no batch to train on: 11 images .* drop_last=True\. Set .*drop_last=False'):
        ResumableBatchSampler(sampler, 100, drop_last=True)
    assert len(ResumableBatchSampler(sampler, 100)) == 1
    ResumableBatchSampler(InfiniteSampler(Numbers(), seed=5), 100, drop_last=True)  # goes on from the end to the start
