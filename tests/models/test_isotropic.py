"""ResMLP and gMLP: equal to timm at their own size, and what happens at others."""

import copy
from unittest import mock

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from helpers.families import ISOTROPIC, TINY, Classifier, named, tiny
from torch import nn

from mlp_backbones import GMLP, ResMLP
from mlp_backbones.models.backbones import gmlp, resmlp
from mlp_backbones.models.layers.token_mixing import TokenMixing, resize_token_mixing
from mlp_backbones.models.layers.windows import from_windows, to_windows

TIMM = {
    (ResMLP, '12'): 'resmlp_12_224',
    (ResMLP, '24'): 'resmlp_24_224',
    (ResMLP, '36'): 'resmlp_36_224',
    (ResMLP, 'big_24'): 'resmlp_big_24_224',
    (GMLP, 'ti16'): 'gmlp_ti16_224',
    (GMLP, 's16'): 'gmlp_s16_224',
    (GMLP, 'b16'): 'gmlp_b16_224',
}
# 10^9 multiply-adds of the classifiers at 224x224, as counted with timm's.
MACS = {
    (ResMLP, '12'): 3.010,
    (ResMLP, '24'): 5.961,
    (ResMLP, '36'): 8.913,
    (ResMLP, 'big_24'): 100.231,
    (GMLP, 'ti16'): 1.344,
    (GMLP, 's16'): 4.422,
    (GMLP, 'b16'): 15.781,
}


def macs(model, *size):
    counted = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, *size))
    return counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total() / 1e9


@pytest.mark.parametrize(
    'cls, arch',
    [pytest.param(*key, marks=[] if key[1] in ('12', 'ti16') else pytest.mark.slow) for key in MACS],
    ids=named,
)
def test_macs_and_the_cost_of_windows(cls, arch):
    # Every block costs the same: the first two and the stem tell the whole.
    settings = (resmlp if cls is ResMLP else gmlp).ARCHS[arch]
    one, two = (Classifier(cls, {**settings, 'depth': depth}) for depth in (1, 2))
    at_224 = macs(one, 224, 224)
    block = macs(two, 224, 224) - at_224
    assert at_224 + (settings['depth'] - 1) * block == pytest.approx(MACS[cls, arch], rel=0.005)
    assert macs(two, 448, 448) / macs(two, 224, 224) == pytest.approx(4, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize('cls, arch', [(ResMLP, '12'), (GMLP, 'ti16')], ids=['ResMLP', 'GMLP'])
def test_logits_and_gradients_equal_timm(cls, arch):
    torch.manual_seed(0)
    theirs = timm.create_model(TIMM[cls, arch]).eval()
    for name, parameter in theirs.named_parameters():
        if name == 'head.weight':
            nn.init.normal_(parameter, std=0.05)  # timm starts it at zero
        elif parameter.ndim == 1 or name.endswith(('alpha', 'beta')):
            nn.init.normal_(parameter, 0.5, 0.2)
        elif name.endswith('gate.proj.weight'):
            nn.init.normal_(parameter, std=0.05)
    ours = Classifier(cls, arch, token_mixing='fixed').eval()
    state = {k if k.startswith('head.') else f'backbone.{k}': v for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    x = torch.randn(2, 3, 224, 224)
    a, b = ours(x), theirs(x)
    assert (a - b).abs().max() < 1e-5 * b.abs().max()
    a.square().mean().backward()
    b.square().mean().backward()
    gradients = {k.removeprefix('backbone.'): p.grad for k, p in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        assert (gradients[name] - parameter.grad).norm() < 1e-4 * parameter.grad.norm(), name


@pytest.mark.parametrize('cls, arch', TIMM, ids=named)
def test_every_variant_has_the_names_of_timm(cls, arch):
    with torch.device('meta'):
        ours = cls(arch, final_norm=True).state_dict()
        theirs = timm.create_model(TIMM[cls, arch], num_classes=0).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_initial_values():
    torch.manual_seed(0)
    for arch, scale in (('12', 0.1), ('24', 1e-5), ('36', 1e-6)):
        block = ResMLP(arch).blocks[3]
        assert torch.all(block.ls1 == scale) and torch.all(block.ls2 == scale)
        assert block.linear_tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    gate = GMLP('ti16').blocks[3].mlp_channels.gate.proj
    assert torch.all(gate.bias == 1) and gate.weight.abs().max() < 1e-5


def test_windows_and_back():
    x = torch.randn(2, 6, 12, 5)
    windows = to_windows(x, (3, 4))
    assert windows.shape == (2 * 2 * 3, 12, 5)
    assert torch.equal(windows[4].view(3, 4, 5), x[0, 3:6, 4:8])
    assert torch.equal(from_windows(windows, (3, 4), (6, 12)), x)


@pytest.mark.parametrize('cls', ISOTROPIC)
@pytest.mark.parametrize('mode', ['window', 'resize', 'fixed'])
def test_all_modes_are_equal_at_the_native_size(cls, mode):
    x = torch.randn(1, 3, 64, 64)
    expected, found = tiny(cls, token_mixing='fixed').eval()(x), tiny(cls, token_mixing=mode).eval()(x)
    assert torch.equal(expected[0], found[0])


@pytest.mark.parametrize('cls', ISOTROPIC)
def test_a_window_is_an_image_of_its_own(cls):
    model = tiny(cls).eval()
    x = torch.randn(1, 3, 128, 192)
    whole = model(x)[0]
    for row in range(2):
        for column in range(3):
            alone = model(x[:, :, 64 * row : 64 * row + 64, 64 * column : 64 * column + 64])[0]
            part = whole[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            torch.testing.assert_close(part, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('size', [(32, 32), (70, 50), (128, 100), (65, 129)])
@pytest.mark.parametrize('cls', ISOTROPIC)
def test_padding_is_that_of_the_hosts(cls, size):
    """A smaller image gives the map that it has at the top left of a batch padded with zeros."""
    model = tiny(cls, cross_window=True).eval()
    x = torch.randn(1, 3, *size)
    padded = nn.functional.pad(x, (0, -size[1] % 64, 0, -size[0] % 64))
    found, expected = model(x)[0], model(padded)[0]
    torch.testing.assert_close(found, expected[:, :, : found.shape[2], : found.shape[3]])


@pytest.mark.parametrize('cls', ISOTROPIC)
def test_cross_window_starts_without_effect_and_then_connects(cls):
    plain = tiny(cls).eval()
    model = cls(**TINY[cls], cross_window=True).eval()
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith('propagations.') for name in missing)
    x = torch.randn(1, 3, 128, 128)
    assert torch.equal(model(x)[0], plain(x)[0])
    connected = tiny(cls, cross_window=True).eval()
    other = x.clone()
    other[:, :, :64, :64] += 1  # the first window only
    for net, reaches in ((plain, False), (connected, True)):
        assert torch.equal(net(x)[0][:, :, 4:, 4:], net(other)[0][:, :, 4:, 4:]) is not reaches


@pytest.mark.parametrize('grid', [(4, 4), (7, 5), (3, 3), (8, 8)])
def test_resized_mixing_of_a_constant_is_the_same(grid):
    torch.manual_seed(0)
    old = TokenMixing((4, 4))
    nn.init.normal_(old.weight, std=0.3)
    weight, bias = resize_token_mixing(old.weight.data, torch.full((16,), 0.7), (4, 4), grid)
    assert weight.shape == (grid[0] * grid[1],) * 2 and bias.shape == (grid[0] * grid[1],)
    torch.testing.assert_close(bias, torch.full_like(bias, 0.7))
    # A map that is constant in space: the old answer, resized.
    answer = nn.functional.interpolate(
        (old.weight.data.sum(1) + 0.7).view(1, 1, 4, 4), grid, mode='bilinear', antialias=True
    )
    torch.testing.assert_close(weight.sum(1) + bias, answer.flatten(), atol=1e-5, rtol=1e-5)


def test_resizing_goes_through_the_old_grid():
    torch.manual_seed(0)
    weight, bias = torch.randn(16, 16), torch.randn(16)
    new_weight, new_bias = resize_token_mixing(weight, bias, (4, 4), (8, 8))
    x = torch.randn(1, 1, 8, 8)
    small = nn.functional.interpolate(x, (4, 4), mode='bilinear', antialias=True).flatten()
    mixed = (weight @ small + bias).view(1, 1, 4, 4)
    expected = nn.functional.interpolate(mixed, (8, 8), mode='bilinear', antialias=True).flatten()
    torch.testing.assert_close(new_weight @ x.flatten() + new_bias, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('img_size', [96, (64, 128), 32])
@pytest.mark.parametrize('cls', ISOTROPIC)
def test_resize_takes_weights_of_another_grid(cls, img_size, tmp_path):
    source = tiny(cls)
    model = tiny(cls, seed=1, img_size=img_size, token_mixing='resize')
    state = source.state_dict()
    before = copy.deepcopy(state)
    model.load_state_dict(state)
    assert all(torch.equal(v, before[k]) for k, v in state.items())  # the caller's dict is untouched
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if v.shape == before[k].shape)
    torch.save({'state_dict': {f'backbone.{k}': v for k, v in state.items()}}, tmp_path / 'x.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    pretrained = tiny(cls, seed=2, img_size=img_size, token_mixing='resize', init_cfg=init_cfg)
    pretrained.init_weights()
    for key, value in pretrained.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert [f.shape[2:] for f in model(torch.randn(1, 3, 100, 200))] == [(7, 13)]


@pytest.mark.parametrize('cls', ISOTROPIC)
def test_cross_window_may_be_missing_from_pretrained_weights(cls, tmp_path):
    torch.save(tiny(cls).state_dict(), tmp_path / 'x.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
    model = cls(**TINY[cls], cross_window=True, init_cfg=init_cfg)
    model.init_weights()
    x = torch.randn(1, 3, 64, 128)
    assert torch.equal(model.eval()(x)[0], tiny(cls).eval()(x)[0])


@pytest.mark.parametrize('cls', ISOTROPIC)
class TestRefusals:
    def test_unknown_mode(self, cls):
        with pytest.raises(ValueError, match="no token_mixing 'crop'; choose from 'window'.*'resize'.*'fixed'"):
            tiny(cls, token_mixing='crop')

    @pytest.mark.parametrize('img_size, nearest', [(100, r'\(96, 96\)'), ((64, 72), r'\(64, 64\)'), (0, r'\(16, 16\)')])
    def test_img_size_no_multiple_of_the_patch(self, cls, img_size, nearest):
        with pytest.raises(ValueError, match=f'multiple of 16 pixels.*nearest is {nearest}'):
            tiny(cls, img_size=img_size)

    def test_img_size_of_another_type(self, cls):
        with pytest.raises(TypeError, match=r'int or \(height, width\)'):
            tiny(cls, img_size='224')

    def test_another_size_when_fixed(self, cls):
        model = tiny(cls, token_mixing='fixed')
        with pytest.raises(ValueError, match=r"64x64 pixels only, got 64x96.*'window'.*'resize'.*\(64, 96\)"):
            model(torch.zeros(1, 3, 64, 96))

    @pytest.mark.parametrize('mode', ['window', 'fixed'])
    def test_weights_of_another_grid(self, cls, mode, tmp_path):
        torch.save(tiny(cls).state_dict(), tmp_path / 'x.pth')
        model = tiny(cls, img_size=96, token_mixing=mode)
        before = copy.deepcopy(model.state_dict())
        message = r"token grid of 4x4 \(img_size=64\).*6x6.*token_mixing='resize'.*img_size=64"
        with pytest.raises(RuntimeError, match=message):
            model.load_state_dict(torch.load(tmp_path / 'x.pth'))
        model.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
        with pytest.raises(RuntimeError, match=message):
            model.init_weights()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_weights_of_a_grid_that_is_not_square(self, cls):
        wide = tiny(cls, img_size=(32, 96))
        with pytest.raises(RuntimeError, match=r'not the weights of a square token grid.*4x4'):
            tiny(cls, token_mixing='resize').load_state_dict(wide.state_dict())

    @pytest.mark.parametrize('through', ['load_state_dict', 'init_cfg'])
    def test_a_grid_that_may_be_another(self, cls, through, tmp_path):
        square, wide = tiny(cls), tiny(cls, img_size=(32, 128))  # 2x8 tokens, as many as 4x4
        torch.save(square.state_dict(), tmp_path / 'x.pth')
        wide.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))
        with mock.patch('mlp_backbones.models.backbones.isotropic.print_log') as log:
            wide.init_weights() if through == 'init_cfg' else wide.load_state_dict(square.state_dict())
        (said,) = (call.args[0] for call in log.call_args_list)
        assert '2x8 grid; if they are of a 4x4 one, use another img_size' in said
        assert all(torch.equal(value, square.state_dict()[key]) for key, value in wide.state_dict().items())

    @pytest.mark.parametrize('depth', [0, 1.5])
    def test_depth(self, cls, depth):
        with pytest.raises(ValueError, match=f'depth.* must be a positive int, got {depth}'):
            tiny(cls, arch=dict(TINY[cls]['arch'], depth=depth))
