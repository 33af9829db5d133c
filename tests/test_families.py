"""What holds for every family: shapes, gradients, freezing, checkpointing, precision, copies, layer depths."""

import copy
import math
import pickle

import pytest
import torch
from families import FAMILIES, VARIANTS, tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import ConvMLP, RepMLP

SIZES = [(64, 64), (32, 32), (96, 160), (65, 47), (130, 33)]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), -1, (1, 2)])
@pytest.mark.parametrize('cls', FAMILIES)
def test_maps_are_as_declared(cls, out_indices, size):
    model = tiny(cls, out_indices=out_indices)
    x = torch.randn(2, 3, *size)
    for training in (True, False):
        assert model.train(training) is model
        maps = model(x)
        assert len(maps) == len(model.out_indices) == len(model.out_channels) == len(model.out_strides)
        for feature, channels, stride in zip(maps, model.out_channels, model.out_strides):
            assert feature.shape == (2, channels, *(math.ceil(side / stride) for side in size))
            assert feature.isfinite().all()


@pytest.mark.parametrize('cls', FAMILIES)
def test_the_sizes_of_coco(cls):
    model = tiny(cls).train()
    sum(f.mean() for f in model(torch.randn(1, 3, 800, 1333))).backward()
    with torch.no_grad():
        maps = model.eval()(torch.randn(1, 3, 1333, 800))
    assert maps[-1].shape[2:] == (math.ceil(1333 / model.out_strides[-1]), math.ceil(800 / model.out_strides[-1]))
    assert all(f.isfinite().all() for f in maps)


@pytest.mark.parametrize('cls, arch', VARIANTS, ids=lambda v: getattr(v, '__name__', v))
def test_every_variant_builds_and_declares_its_maps(cls, arch):
    with torch.device('meta'):
        model = cls(arch).eval()
        size = getattr(model, 'img_size', (224, 224))
        maps = model(torch.empty(1, 3, *size))
    declared = zip(maps, model.out_channels, model.out_strides)
    assert all(f.shape == (1, c, math.ceil(size[0] / s), math.ceil(size[1] / s)) for f, c, s in declared)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('cls', FAMILIES)
def test_every_parameter_gets_a_gradient(cls, with_cp):
    extra = dict(cross_window=True) if cls not in (ConvMLP, RepMLP) else {}
    model = tiny(cls, out_indices=(0, 1, 2, 3), final_norm=True, with_cp=with_cp, **extra).train()
    sum(f.square().mean() for f in model(torch.randn(2, 3, 96, 65))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize('cls', FAMILIES)
def test_checkpointing_changes_nothing(cls):
    plain, saving = (tiny(cls, with_cp=cp).train() for cp in (False, True))
    x = torch.randn(2, 3, 96, 64)
    results = []
    for model in (plain, saving):
        maps = model(x)
        sum(f.square().mean() for f in maps).backward()
        results.append(([*maps, *(p.grad for p in model.parameters())], model.state_dict()))
    for a, b in zip(results[0][0], results[1][0]):
        torch.testing.assert_close(a, b)
    for key, value in results[0][1].items():
        torch.testing.assert_close(value, results[1][1][key], msg=key)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 2, 3])
@pytest.mark.parametrize('cls', FAMILIES)
def test_frozen_stages(cls, frozen_stages):
    model = tiny(cls, out_indices=(0, 1, 2, 3), frozen_stages=frozen_stages, final_norm=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    frozen = {p for i in range(frozen_stages + 1) for m in model.stage_modules(i) for p in m.parameters()}
    assert {p for p in model.parameters() if not p.requires_grad} == frozen
    maps = model(torch.randn(2, 3, 64, 64))
    if frozen_stages < 3:
        sum(f.mean() for f in maps).backward()
    for i in range(frozen_stages + 1):
        for module in model.stage_modules(i):
            assert not any(m.training for m in module.modules())
    prefixes = [n for n, m in model.named_modules() for i in range(frozen_stages + 1) if m in model.stage_modules(i)]
    for key, value in model.state_dict().items():
        if any(key.startswith(prefix + '.') for prefix in prefixes):
            assert torch.equal(value, before[key]), key
    assert not frozen_stages >= 0 or all(p.grad is None for p in frozen)


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
def test_copies_and_state_dict(cls):
    model = tiny(cls).eval()
    other = tiny(cls, seed=1).eval()
    x = torch.randn(1, 3, 65, 96)
    assert not torch.allclose(model(x)[-1], other(x)[-1], atol=1e-3)
    assert other.load_state_dict(model.state_dict()) == ([], [])
    for twin in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert all(torch.equal(a, b) for a, b in zip(model(x), twin(x)))


@pytest.mark.parametrize('cls', FAMILIES)
def test_maps_have_the_images_memory_format(cls):
    model = tiny(cls, out_indices=(0, 1, 2, 3)).eval()
    x = torch.randn(2, 3, 96, 64)
    plain, last = model(x), model(x.contiguous(memory_format=torch.channels_last))
    for a, b in zip(plain, last):
        assert a.is_contiguous() and b.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


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


@pytest.mark.parametrize(
    'kwargs, error, message',
    [
        (dict(arch='huge'), ValueError, "has no arch 'huge'; choose from"),
        (dict(arch=3), TypeError, 'arch must be a string or a dict'),
        (dict(arch=dict(dim=3)), ValueError, 'has exactly the keys'),
        (dict(out_indices=(0, 4)), ValueError, 'out_indices must name at least one stage, each from -4 to 3'),
        (dict(out_indices='3'), TypeError, 'out_indices must be'),
        (dict(out_indices=(1, -3)), ValueError, 'twice'),
        (dict(frozen_stages=4), ValueError, 'frozen_stages must be from -1'),
        (dict(drop_path_rate=1.0), ValueError, 'drop_path_rate must be in'),
        (dict(in_channels=0), ValueError, 'in_channels must be a positive int'),
        (dict(out_indices=(0,), final_norm=True), ValueError, 'final_norm belongs to'),
    ],
)
@pytest.mark.parametrize('cls', FAMILIES)
def test_bad_arguments(cls, kwargs, error, message):
    with pytest.raises(error, match=f'{cls.__name__}.*{message}'):
        tiny(cls, **kwargs)


@pytest.mark.parametrize('shape', [(1, 3, 31, 64), (1, 4, 64, 64), (3, 64, 64)])
@pytest.mark.parametrize('cls', FAMILIES)
def test_bad_images(cls, shape):
    with pytest.raises(ValueError, match=f'{cls.__name__} takes images of'):
        tiny(cls)(torch.zeros(shape))
