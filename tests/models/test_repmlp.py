"""RepMLP: equal to the original in both forms, tiles of any size, and what padding may not reach."""

import copy
import re

import numpy as np
import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from helpers.families import Classifier, tiny
from helpers.goldens import difference, image, load
from torch import nn

from mlp_backbones import RepMLP
from mlp_backbones.models.backbones import repmlp
from mlp_backbones.models.layers.tiles import RepMLPBlock

# Parameters of the original's classifiers in deploy form, as counted with its code.
DEPLOY_PARAMETERS = {
    't224': 38_331_720,
    'b224': 68_332_664,
    't256': 58_739_400,
    'b256': 96_568_184,
    'd256': 86_985_280,
    'l256': 117_820_600,
}
# 10^9 multiply-adds of the original's classifiers at their own size, in training and deploy form.
MACS = {
    't224': (2.829, 2.814),
    'b224': (6.716, 6.686),
    't256': (4.285, 4.265),
    'b256': (9.693, 9.654),
    'd256': (8.691, 8.650),
    'l256': (11.675, 11.626),
}
NAMES = {False: 'repmlpnet_t224', True: 'repmlpnet_t224_deploy'}


@pytest.mark.slow
@pytest.mark.parametrize('deploy', [False, True])
def test_equals_the_original(deploy):
    facts, checkpoint, answers = load(NAMES[deploy])
    model = Classifier(RepMLP, 't224', deploy=deploy).eval()
    model.load_state_dict({k if k.startswith('head.') else f'backbone.{k}': v for k, v in checkpoint.items()})
    with torch.no_grad():
        logits = model(image(*facts['input'][:1], *facts['input'][2:], seed=0))
    # The training form of the golden's weights magnifies rounding: in float64 the original itself is 2.3e-5 (logits)
    # and 3.5e-3 (gradients) away from its float32 answers, and equal to ours to 1e-12.
    assert difference(logits, answers['logits']) < (1e-5 if deploy else 1e-4)
    weights = torch.from_numpy(np.random.RandomState(3).randn(1000).astype(np.float32))
    (model(image(1, *facts['input'][2:], seed=2)) @ weights).sum().backward()
    norms = {k.removeprefix('backbone.'): p.grad.norm().item() for k, p in model.named_parameters()}
    expected = facts['grad_norm']
    if deploy:  # a convolution that has taken in a BatchNorm has another gradient
        unchanged = r'(.*\.(gp|fc3|prebn1)|head_norm|head)\..*'
        norms, expected = (
            {k: v for k, v in given.items() if re.fullmatch(unchanged, k)} for given in (norms, expected)
        )
    assert norms.keys() == expected.keys() and len(norms) > 50
    for name, norm in expected.items():
        assert norms[name] == pytest.approx(norm, rel=1e-3 if deploy else 1e-2), name


@pytest.mark.parametrize('arch', DEPLOY_PARAMETERS)
def test_parameters_of_the_deploy_form(arch):
    with torch.device('meta'):
        model = Classifier(RepMLP, arch, deploy=True)
    # Ours has its BatchNorms folded too: C of the 2 C of each that follows a convolution, and prebn2's.
    channels, depths = (repmlp.ARCHS[arch][key] for key in ('channels', 'depths'))
    folded = sum(c + d * (4 * c + c + 2 * c) for c, d in zip(channels, depths))
    assert sum(p.numel() for p in model.parameters()) == DEPLOY_PARAMETERS[arch] - folded


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('arch', ['t224', *(pytest.param(a, marks=pytest.mark.slow) for a in list(MACS)[1:])])
def test_macs(arch, deploy):
    model = Classifier(RepMLP, arch, deploy=deploy).eval()
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, *model.backbone.img_size))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counted.total() / 1e9 == pytest.approx(MACS[arch][deploy], rel=0.005)


@pytest.mark.parametrize('img_size', [64, (64, 96), (32, 64)])
@pytest.mark.parametrize('size', [(64, 64), (96, 160), (65, 47)])
def test_folding_is_exact(img_size, size):
    model = tiny(RepMLP, img_size=img_size, out_indices=(0, 1, 2, 3), final_norm=True).eval()
    folded = copy.deepcopy(model)
    folded.switch_to_deploy()
    x = torch.randn(2, 3, *size)
    for a, b in zip(folded(x), model(x)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    again = copy.deepcopy(folded.state_dict())
    folded.switch_to_deploy()  # a folded model stays as it is
    assert all(torch.equal(v, again[k]) for k, v in folded.state_dict().items())
    built = tiny(RepMLP, img_size=img_size, out_indices=(0, 1, 2, 3), final_norm=True, deploy=True).eval()
    assert built.load_state_dict(folded.state_dict()) == ([], [])
    assert all(torch.equal(a, b) for a, b in zip(built(x), folded(x)))
    assert not any('repconv' in name or 'fc3_bn' in name for name, _ in folded.named_modules())


def reference(block, x):
    """The block tile by tile, by the paper's definition, on a map of whole tiles."""
    n, channels, height, width = x.shape
    (h, w), sets = block.tile, block.share_sets
    out = torch.zeros_like(x)
    for top in range(0, height, h):
        for left in range(0, width, w):
            tile = x[:, :, top : top + h, left : left + w].reshape(-1, sets, h, w)
            fc = nn.functional.conv2d(tile.reshape(-1, sets * h * w, 1, 1), block.fc3.weight, groups=sets)
            y = block.fc3_bn(fc.reshape(-1, sets, h, w))
            y = y + block.repconv1(tile) + block.repconv3(tile)
            out[:, :, top : top + h, left : left + w] = y.reshape(n, channels, h, w)
    gate = x.mean((2, 3), keepdim=True)
    return out * block.gp.fc2(block.gp.fc1(gate).relu()).sigmoid()


def test_tiles_share_the_layer():
    block = tiny(RepMLP, img_size=(64, 96)).stages[2][0].repmlp_block.eval()
    assert block.tile == (4, 6)
    x = torch.randn(2, 16, 12, 12)
    torch.testing.assert_close(block(x), reference(block, x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_reaches_neither_the_gate_nor_the_statistics():
    block = RepMLPBlock(8, (4, 4), 2, dict(type='BN')).train()
    x = torch.randn(2, 8, 5, 7)
    seen = {}
    for name, module in block.named_modules():
        if isinstance(module, nn.BatchNorm2d) or name == 'gp':
            module.register_forward_hook(lambda m, i, o, name=name: seen.__setitem__(name, i[0]))
    block(x)
    assert set(seen) == {'gp', 'fc3_bn', 'repconv1.bn', 'repconv3.bn'}
    assert seen['gp'] is x
    for name in ('fc3_bn', 'repconv1.bn', 'repconv3.bn'):
        assert seen[name].shape == (2 * 4, 2, 5, 7)  # real positions only: channel c is of share set c mod 2
    expected = nn.functional.conv2d(x.reshape(8, 2, 5, 7), block.repconv1.conv.weight, groups=2)
    torch.testing.assert_close(seen['repconv1.bn'], expected)


@torch.no_grad()
def test_padded_tiles_are_zeros():
    block = tiny(RepMLP).stages[1][0].repmlp_block.eval()
    x = torch.randn(1, 16, 11, 9)
    padded = nn.functional.pad(x, (0, 7, 0, 5))
    gate = block.gp(x) / block.gp(padded)  # the mean is over the real positions
    torch.testing.assert_close(block(x), (block(padded) * gate)[:, :, :11, :9], atol=1e-5, rtol=1e-5)


def test_a_training_step_at_the_native_size_is_the_originals():
    block = tiny(RepMLP).stages[1][0].repmlp_block.train()
    other = copy.deepcopy(block)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), reference(other, x), atol=1e-5, rtol=1e-5)
    for key, value in block.state_dict().items():
        torch.testing.assert_close(value, other.state_dict()[key], msg=key)


class TestRefusals:
    def test_tiles_of_another_size(self):
        with pytest.raises(RuntimeError, match=r'img_size=\(96, 96\): tiles of another size, or another arch'):
            tiny(RepMLP, img_size=96).load_state_dict(tiny(RepMLP).state_dict())

    @pytest.mark.parametrize('img_size', [100, (64, 48)])
    def test_img_size(self, img_size):
        with pytest.raises(ValueError, match='multiple of 32 pixels'):
            tiny(RepMLP, img_size=img_size)

    def test_norm_that_cannot_be_folded(self):
        with pytest.raises(ValueError, match="'BN' or 'SyncBN', with running statistics"):
            tiny(RepMLP, norm_cfg=dict(type='GN', num_groups=1))

    def test_share_sets_that_do_not_divide(self):
        arch = dict(channels=(8, 16, 16, 32), depths=(1, 1, 1, 1), share_sets=(3, 2, 4, 8), img_size=64)
        with pytest.raises(ValueError, match="share sets divides its stage's channels"):
            RepMLP(arch)
