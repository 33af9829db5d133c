"""Answers of the original implementations for weights that follow from the tensors' names (tests/data/goldens)."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / 'data' / 'goldens'
GOLDENS = {
    'convmlp_s': dict(type='ConvMLP', arch='s', out_indices=(3,)),
    'timm_resmlp_12_224': dict(type='ResMLP', arch='12'),
    'deit_resmlp_12': dict(type='ResMLP', arch='12'),
    'timm_gmlp_ti16_224': dict(type='GMLP', arch='ti16'),
    'repmlpnet_t224': dict(type='RepMLP', arch='t224', out_indices=(3,)),
    'repmlpnet_t224_deploy': dict(type='RepMLP', arch='t224', out_indices=(3,), deploy=True),
}


def weight(name: str, shape: list[int]) -> torch.Tensor:
    """The value that the golden's makers gave to the checkpoint tensor ``name``."""
    leaf = name.split('.')[-1]
    if leaf == 'num_batches_tracked':
        return torch.zeros(shape, dtype=torch.int64)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    noise = random.randn(*shape).astype(np.float32)
    if leaf in ('running_var', '_variance'):
        value = (0.5 + random.rand(*shape)).astype(np.float32)
    elif leaf in ('running_mean', '_mean', 'bias', 'beta'):
        value = 0.1 * noise
    elif leaf in ('ls1', 'ls2', 'gamma_1', 'gamma_2'):
        value = 0.3 + 0.1 * noise
    elif leaf == 'alpha' or len(shape) < 2:
        value = 1 + 0.1 * noise
    else:
        value = noise / np.float32(np.sqrt(np.prod(shape[1:])))
    return torch.from_numpy(np.asarray(value))


def image(batch: int, height: int, width: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(batch, 3, height, width).astype(np.float32))


def load(name: str):
    """(facts, checkpoint, answers): the json, the tensors by name, the arrays of the npz as tensors."""
    facts = json.loads((FOLDER / f'{name}.json').read_text())
    checkpoint = {key: weight(key, shape) for key, shape in facts['tensors']}
    with np.load(FOLDER / f'{name}.npz') as arrays:
        answers = {key: torch.from_numpy(arrays[key]) for key in arrays}
    return facts, checkpoint, answers


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, relative to the largest entry of ``theirs``."""
    assert ours.shape == theirs.shape
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
