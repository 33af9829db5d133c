import math

import numpy as np
import pytest
import torch
from torch import nn

from mlp_backbones import SimpleFeaturePyramid


@pytest.mark.parametrize('in_stride', [8, 16])
@pytest.mark.parametrize('strides', [(4, 8, 16, 32), (8, 16, 32, 64, 128), (4, 8, 16, 32, 64), (16,)])
def test_strides_and_gradients(strides, in_stride):
    neck = SimpleFeaturePyramid(16, 12, in_stride, strides)
    x = torch.randn(2, 16, 96 // in_stride + 1, 160 // in_stride)
    outs = neck([torch.zeros(1), x])  # the last map counts
    assert neck.out_strides == strides and neck.out_channels == (12,) * len(strides)
    for out, stride in zip(outs, strides):
        expected = [math.ceil(side * in_stride / stride) for side in x.shape[2:]]
        assert out.shape == (2, 12, *expected) and out.isfinite().all()
    sum(o.square().mean() for o in outs).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_numbers_of_numpy():
    neck = SimpleFeaturePyramid(np.int64(16), np.int32(12), np.int64(16), tuple(np.array([8, 16, 32, 64])))
    assert [tuple(out.shape) for out in neck([torch.zeros(1, 16, 4, 6)])] == [
        (1, 12, 8, 12),
        (1, 12, 4, 6),
        (1, 12, 2, 3),
        (1, 12, 1, 2),
    ]
    assert {type(n) for n in (neck.in_channels, *neck.out_channels, *neck.out_strides)} == {int}


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
def test_builds_in_the_hosts(host):
    import importlib

    neck = importlib.import_module(f'{host}.registry').MODELS.build(
        dict(type='mlp_backbones.SimpleFeaturePyramid', in_channels=[16], norm_cfg=dict(type='SyncBN'))
    )
    assert isinstance(neck, SimpleFeaturePyramid)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in neck.modules())


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(in_channels=[8, 16]), 'takes one map'),
        (dict(in_channels=16, out_strides=(4, 12)), 'times a power of two'),
        (dict(in_channels=16, out_strides=(8, 4)), 'must ascend'),
        (dict(in_channels=16, out_strides=()), 'must ascend'),
        (dict(in_channels=6, out_strides=(4, 8)), 'in_channels=6 does not allow stride 4'),
        (dict(in_channels=16, out_strides=(64, 128)), 'up to 32'),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**kwargs)


def test_bad_input():
    with pytest.raises(ValueError, match=r'\(N, 16, H, W\), got \(1, 8, 4, 4\)'):
        SimpleFeaturePyramid(16)([torch.zeros(1, 8, 4, 4)])
