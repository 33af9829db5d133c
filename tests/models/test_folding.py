"""The arithmetic of folding: what a layer computes with the folded weights is what the layers compute one by one."""

import pytest
import torch
from torch import nn

from mlp_backbones.models.layers import folding
from mlp_backbones.models.layers.tiles import convolution_as_linear

pytestmark = pytest.mark.usefixtures('seeded')


@pytest.fixture
def seeded():
    torch.manual_seed(0)


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize('affine', [False, True])
def test_batch_norm_affine(affine):
    norm = nn.BatchNorm2d(4, affine=affine).double().eval()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    x = double(2, 4, 3, 5)
    scale, shift = folding.affine_of(norm)
    torch.testing.assert_close(scale.view(-1, 1, 1) * x + shift.view(-1, 1, 1), norm(x))


@pytest.mark.parametrize('bias', [None, double(3)], ids=['without bias', 'with bias'])
def test_fold_before_and_after(bias):
    weight, x = double(3, 5), double(7, 5)
    before, after = (double(5), double(5)), (double(3), double(3))
    y = nn.functional.linear(before[0] * x + before[1], weight, bias)
    torch.testing.assert_close(nn.functional.linear(x, *folding.fold_before(weight, bias, *before)), y)
    both = folding.fold_after(*folding.fold_before(weight, bias, *before), *after)
    torch.testing.assert_close(nn.functional.linear(x, *both), after[0] * y + after[1])


def test_fold_after_a_transposed_convolution():
    weight, bias, x = double(5, 3, 2, 2), double(3), double(1, 5, 4, 6)
    scale, shift = double(3), double(3)
    y = nn.functional.conv_transpose2d(x, weight, bias, stride=2)
    folded = folding.fold_after(weight, bias, scale, shift, dim=1)
    expected = scale.view(-1, 1, 1) * y + shift.view(-1, 1, 1)
    torch.testing.assert_close(nn.functional.conv_transpose2d(x, *folded, stride=2), expected)


def test_fold_token_mixing():
    weight, bias, x = double(6, 6), double(6), double(2, 6, 4)
    scale, shift, after = double(4), double(4), double(4)
    expected = after * (weight @ (scale * x + shift) + bias[:, None])
    scale, shift = folding.fold_token_mixing(weight, bias, scale, shift, after)
    torch.testing.assert_close(scale * (weight @ x) + shift, expected)


@pytest.mark.parametrize('kernel', [1, 3])
def test_convolution_as_linear(kernel):
    filters, x = double(2, 1, kernel, kernel), double(3, 2, 4, 5)
    expected = nn.functional.conv2d(x, filters, padding=kernel // 2, groups=2)
    weight = convolution_as_linear(filters, (4, 5)).view(2, 20, 20)
    torch.testing.assert_close(torch.einsum('sij,bsj->bsi', weight, x.flatten(2)), expected.flatten(2))


def test_float32_is_folded_in_float64():
    weight = torch.randn(3, 5)
    folded, bias = folding.fold_before(weight, None, torch.full((5,), 1 / 3), torch.ones(5))
    assert folded.dtype == bias.dtype == torch.float64
    assert torch.equal(folded, weight.double() * torch.tensor(1 / 3).double())
