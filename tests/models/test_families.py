"""What holds for every family: sizes, freezing, precision, memory formats, layer depths, refused arguments."""

import copy
import math

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES, ISOTROPIC, TINY, tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP


@pytest.mark.parametrize('size', [(64, 64), (32, 32), (96, 160), (65, 47), (130, 33)])
@pytest.mark.parametrize('cls', FAMILIES)
def test_sizes(cls, size):
    model = tiny(cls, out_indices=(0, 1, 2, 3))
    x = torch.randn(2, 3, *size)
    declared = list(zip(model.out_channels, model.out_strides))
    for training in (True, False):
        maps = model.train(training)(x)
        assert [f.shape for f in maps] == [(2, c, *(math.ceil(side / s) for side in size)) for c, s in declared]
        assert all(f.isfinite().all() for f in maps)


@pytest.mark.parametrize('cls', FAMILIES)
def test_the_sizes_of_coco(cls):
    model = tiny(cls).train()
    sum(f.mean() for f in model(torch.randn(1, 3, 800, 1333))).backward()
    with torch.no_grad():
        maps = model.eval()(torch.randn(1, 3, 1333, 800))
    assert maps[-1].shape[2:] == (math.ceil(1333 / model.out_strides[-1]), math.ceil(800 / model.out_strides[-1]))
    assert all(f.isfinite().all() for f in maps)


def of_numpy(value):
    """A setting with numpy's numbers in the place of Python's."""
    if isinstance(value, dict):
        return {k: of_numpy(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(of_numpy, value))
    return {bool: np.bool_, int: np.int64, float: np.float32}[type(value)](value)


@pytest.mark.parametrize('cls', FAMILIES)
def test_numbers_of_numpy(cls, tmp_path):
    """They build the same model, which holds Python's own; weights are named by a Path too."""
    given = dict(in_channels=4, out_indices=(0, -1), frozen_stages=0, norm_eval=True, with_cp=True, drop_path_rate=0.25)
    given = {**TINY[cls], **given}
    torch.manual_seed(0)
    model = cls(**given)
    torch.save(model.state_dict(), tmp_path / 'x.pth')
    same = cls(**of_numpy(given), init_cfg=dict(type='Pretrained', checkpoint=tmp_path / 'x.pth'))
    same.init_weights()
    x = torch.randn(1, 4, 64, 96)
    assert all(map(torch.equal, same.eval()(x), model.eval()(x)))
    for name in ('in_channels', 'frozen_stages', *(['img_size'] if hasattr(model, 'img_size') else [])):
        mine, theirs = getattr(same, name), getattr(model, name)
        assert mine == theirs and str(mine) == str(theirs)  # np.int64(4) is shown as such
    assert str(same.out_indices) == str(model.out_indices)
    for name, value, error in (
        ('in_channels', np.True_, ValueError),
        ('frozen_stages', np.float32(1), TypeError),
        ('out_indices', np.bool_(False), TypeError),
    ):
        with pytest.raises(error, match=f'{name} must be '):
            cls(**{**given, name: value})


# The modules of each stage.
BLOCKS = [('stem.', 'blocks.0.', 'propagations.0.'), ('blocks.1.', 'propagations.1.')]
BLOCKS += [('blocks.2.', 'propagations.2.'), ('blocks.3.', 'propagations.3.', 'norm.')]
STAGES = {
    ConvMLP: [('tokenizer.',), ('conv_stages.',), ('stages.0.',), ('stages.1.', 'stages.2.', 'norm.')],
    ResMLP: BLOCKS,
    GMLP: BLOCKS,
    RepMLP: [
        ('conv_embedding.', 'stages.0.'),
        ('embeds.0.', 'stages.1.'),
        ('embeds.1.', 'stages.2.'),
        ('embeds.2.', 'stages.3.', 'head_norm.'),
    ],
}


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3])
@pytest.mark.parametrize('cls', FAMILIES)
def test_frozen_stages(cls, frozen_stages):
    extra = dict(cross_window=True) if cls in ISOTROPIC else {}
    model = tiny(cls, out_indices=(0, 1, 2, 3), frozen_stages=frozen_stages, final_norm=True, **extra).train()
    frozen = tuple(prefix for stage in STAGES[cls][: frozen_stages + 1] for prefix in stage)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen), name
    for name, module in model.named_modules():
        assert module.training is not f'{name}.'.startswith(frozen), name
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    maps = model(torch.randn(2, 3, 64, 64))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) is name.startswith(frozen), name
    if frozen_stages < 3:
        sum(f.mean() for f in maps).backward()
    assert all(p.grad is None for name, p in model.named_parameters() if name.startswith(frozen))


@pytest.mark.parametrize('cls', FAMILIES)
def test_norm_eval(cls):
    model = tiny(cls, norm_eval=True).train()
    assert model.training
    assert not any(m.training for m in model.modules() if isinstance(m, _BatchNorm))


@pytest.mark.parametrize('cls', FAMILIES)
def test_bfloat16_and_autocast_stay_close(cls):
    model = tiny(cls).eval()
    x = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = model(x)
        half = copy.deepcopy(model).bfloat16()(x.bfloat16())
    for a, b, c in zip(exact, mixed, half):
        assert c.dtype == torch.bfloat16
        for other in (b, c):
            assert (other.float() - a).norm() < 0.05 * a.norm()


@pytest.mark.parametrize('cls', FAMILIES)
def test_maps_have_the_images_memory_format(cls):
    """And the same values and gradients."""
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = tiny(cls, out_indices=(0, 1, 2, 3)).train()
        maps = model(torch.ones(2, 3, 96, 65).cumsum(3).contiguous(memory_format=layout) / 65)
        assert all(f.is_contiguous(memory_format=layout) for f in maps)
        sum(f.square().mean() for f in maps).backward()
        results.append((maps, {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('cls', FAMILIES)
def test_a_sliced_image_gives_contiguous_maps(cls):
    batch = torch.randn(2, 4, 96, 96)
    assert all(f.is_contiguous() for f in tiny(cls).eval()(batch[:, :3, :64, 32:]))


@pytest.mark.parametrize('cls', FAMILIES)
def test_final_norm_touches_the_last_map_only(cls):
    plain = tiny(cls, out_indices=(0, 1, 2, 3)).eval()
    normed = tiny(cls, out_indices=(0, 1, 2, 3), final_norm=True).eval()
    missing = normed.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and len({name.split('.')[0] for name in missing}) == 1
    a, b = plain(torch.ones(1, 3, 64, 64)), normed(torch.ones(1, 3, 64, 64))
    assert all(torch.equal(left, right) for left, right in zip(a[:3], b[:3]))
    assert not torch.allclose(a[3], b[3], atol=1e-3)


@pytest.mark.parametrize('cls', FAMILIES)
def test_stochastic_depth_only_in_training(cls):
    model = tiny(cls, drop_path_rate=0.9)
    x = torch.randn(8, 3, 64, 64)
    assert all(torch.equal(a, b) for a, b in zip(model.eval()(x), model(x)))
    model = tiny(cls, drop_path_rate=0.9, norm_eval=True).train()
    assert not torch.equal(model(x)[-1], model(x)[-1])


@pytest.mark.parametrize('cls', FAMILIES)
def test_layer_depths_ascend(cls):
    model = nn.Sequential()
    model.backbone = tiny(cls, final_norm=True)
    depths = [model.backbone.get_layer_depth(name, 'backbone.') for name, _ in model.named_parameters()]
    counts = {count for _, count in depths}
    assert len(counts) == 1 and {depth for depth, _ in depths} == set(range(counts.pop()))
    assert model.backbone.get_layer_depth('head.weight', 'backbone.')[0] == max(depth for depth, _ in depths)


OUT_INDICES = 'out_indices must name at least one stage, each once and from -4 to 3'


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(arch='huge'), ValueError, "has no arch 'huge'; choose from"),
        (dict(arch=3), TypeError, 'arch must be a string or a dict, got int'),
        (dict(arch=dict(dim=3)), ValueError, 'an arch dict has exactly the keys'),
        (dict(depth=50), TypeError, "got an unexpected keyword argument 'depth'"),
        (
            dict(pretrained='x.pth'),
            TypeError,
            "got an unexpected keyword argument 'pretrained'.*also set model.pretrained=None",
        ),
        (dict(out_indices=4), ValueError, f'{OUT_INDICES}, got 4'),
        (dict(out_indices=(0, -5)), ValueError, rf'{OUT_INDICES}, got \(0, -5\)'),
        (dict(out_indices=()), ValueError, rf'{OUT_INDICES}, got \(\)'),
        (dict(out_indices=(1, -3)), ValueError, rf'{OUT_INDICES}, got \(1, -3\)'),
        (dict(out_indices='3'), TypeError, "out_indices must be an int or a sequence of ints, got '3'"),
        (dict(out_indices=(1.0,)), TypeError, r'out_indices must be an int or a sequence of ints, got \(1.0,\)'),
        (dict(frozen_stages=4), ValueError, r'frozen_stages must be from -1 \(none\) to 3'),
        (dict(frozen_stages=2, out_indices=(1,)), ValueError, r'frozen_stages must be from -1 \(none\) to 1'),
        (dict(frozen_stages=None), TypeError, 'frozen_stages must be an int, got None'),
        (dict(drop_path_rate=1.0), ValueError, r'drop_path_rate must be in \[0, 1\), got 1.0'),
        (dict(drop_path_rate='0.1'), TypeError, "drop_path_rate must be a number, got '0.1'"),
        (dict(in_channels=0), ValueError, 'in_channels must be a positive int, got 0'),
        (dict(out_indices=(0,), final_norm=True), ValueError, 'final_norm belongs to the last stage, 3'),
    ],
)
@pytest.mark.parametrize('cls', FAMILIES)
def test_bad_arguments(cls, kwargs, error, message):
    with pytest.raises(error, match=f'{cls.__name__}:? {message}'):
        cls(**{**TINY[cls], 'out_indices': (0, 1, 2, 3), **kwargs})


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 31, 64), 'of at least 32x32 pixels, got 31x64'),
        ((1, 4, 64, 64), r'of shape \(N, 3, H, W\), got \(1, 4, 64, 64\)'),
        ((3, 64, 64), r'of shape \(N, 3, H, W\), got \(3, 64, 64\)'),
    ],
)
@pytest.mark.parametrize('cls', FAMILIES)
def test_bad_images(cls, shape, message):
    with pytest.raises(ValueError, match=f'{cls.__name__} takes images {message}'):
        tiny(cls)(torch.zeros(shape))
