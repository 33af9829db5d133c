"""What holds for every published architecture, on a small image that is not square: one matrix of tests."""

import copy
import math
import pickle
import sys

import pytest
import torch
from helpers.families import FAMILIES, ISOTROPIC, TINY, VARIANTS, Classifier, named, randomise, tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP, reparameterize
from mlp_backbones.deploy.reparameterize import relative_difference
from mlp_backbones.models.layers.norm import Affine

# Parameters of the classifiers, and of RepMLP's in the original's deploy form too.
PARAMETERS = {
    (ConvMLP, 'small'): 9_022_920,
    (ConvMLP, 'medium'): 17_410_504,
    (ConvMLP, 'large'): 42_728_440,
    (ResMLP, '12'): 15_350_872,
    (ResMLP, '24'): 30_020_680,
    (ResMLP, '36'): 44_690_488,
    (ResMLP, 'big_24'): 129_138_280,
    (GMLP, 'ti16'): 5_867_328,
    (GMLP, 's16'): 19_422_656,
    (GMLP, 'b16'): 73_075_392,
    (RepMLP, 't224'): 38_293_608,
    (RepMLP, 'b224'): 68_242_712,
    (RepMLP, 't256'): 58_687_848,
    (RepMLP, 'b256'): 96_447_512,
    (RepMLP, 'd256'): 86_887_648,
    (RepMLP, 'l256'): 117_641_560,
}
# With img_size given, t256 and b256 are t224 and b224.
DISTINCT = [variant for variant in VARIANTS if variant not in ((RepMLP, 't256'), (RepMLP, 'b256'))]
MATRIX = [
    pytest.param(
        variant,
        id=f'{variant[0].__name__}-{variant[1]}',
        marks=[] if variant[1] in ('small', '12', 'ti16', 't224') else [pytest.mark.slow],
    )
    for variant in DISTINCT
]
SIZE = (40, 70)  # no multiple of any stride


def build(cls, arch, **kwargs):
    """A model whose token grid or tiles cover 32 pixels, and whose windows talk to each other."""
    size = {} if cls is ConvMLP else dict(img_size=32)
    cross_window = dict(cross_window=True) if cls in ISOTROPIC else {}
    return cls(arch, **{'out_indices': (0, 1, 2, -1), 'final_norm': True, **size, **cross_window, **kwargs})


def twin(model, cls, arch, **kwargs):
    """The same architecture built with other arguments, and copies of the model's weights."""
    with torch.device('meta'):
        other = build(cls, arch, **kwargs)
    state, names = model.state_dict(), other.state_dict().keys()
    other.load_state_dict({name: state[name].clone() for name in names}, assign=True)
    return other.eval()


def step(model):
    """Maps, gradients by the parameters' names, and buffers of a training step."""
    maps = model.train()(torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)))
    sum(f.square().mean() for f in maps).backward()
    return maps, {name: p.grad for name, p in model.named_parameters()}, dict(model.named_buffers())


def image():
    return torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_equal_outputs(model, other):
    for ours, theirs in zip(model(image()), other(image()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('cls, arch', VARIANTS, ids=named)
class TestMetadata:
    def test_parameters(self, cls, arch):
        with torch.device('meta'):
            assert sum(p.numel() for p in Classifier(cls, arch).parameters()) == PARAMETERS[cls, arch]

    @pytest.mark.slow
    def test_maps_at_the_native_size(self, cls, arch):
        with torch.device('meta'):
            model = cls(arch).eval()
            size = getattr(model, 'img_size', (224, 224))
            maps = model(torch.empty(1, 3, *size))
        declared = zip(model.out_channels, model.out_strides)
        assert [f.shape for f in maps] == [(1, c, size[0] // s, size[1] // s) for c, s in declared]


@pytest.fixture(scope='module', params=MATRIX)
def variant(request):
    return request.param


@pytest.fixture(scope='module')
def model(variant):
    torch.manual_seed(0)
    return randomise(build(*variant, drop_path_rate=0)).eval()


@pytest.fixture(scope='module')
def trained(model, variant):
    return step(twin(model, *variant, drop_path_rate=0))


@torch.no_grad()
def test_shapes_and_strides(model):
    maps = model(image())
    declared = zip(model.out_channels, model.out_strides)
    assert [f.shape for f in maps] == [(1, c, *(math.ceil(side / s) for side in SIZE)) for c, s in declared]
    assert all(f.isfinite().all() for f in maps)


@torch.no_grad()
def test_out_indices(model, variant):
    """Fewer maps are the same maps, of a model without what comes after them."""
    part = twin(model, *variant, out_indices=(0, 2), final_norm=False)
    for ours, theirs in zip(part(image()), model(image())[::2]):
        assert torch.equal(ours, theirs)
    built = [m for i in range(3) for m in part.stage_modules(i)]
    assert {id(p) for m in built for p in m.parameters()} == {id(p) for p in part.parameters()}


def test_every_parameter_gets_a_gradient(trained):
    _, gradients, _ = trained
    for name, gradient in gradients.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


def test_activation_checkpointing(model, variant, trained):
    torch.testing.assert_close(step(twin(model, *variant, drop_path_rate=0, with_cp=True)), trained)


@pytest.mark.parametrize('cls', [GMLP, RepMLP])
def test_cheap_activations_are_recomputed(cls, monkeypatch):
    """Less is kept for the backward pass, and nothing else changes: outputs, gradients and BatchNorm's statistics."""

    module = sys.modules[cls.__module__]

    def measured(call):
        storages = {}

        def keep(x):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        monkeypatch.setattr(module, 'recompute_activations', lambda f, part, *kept: call(f, part, *map(keep, kept)))
        model = tiny(cls)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            maps = model(image())
        return step(model), maps, sum(storages.values())

    *recomputed, kept = measured(module.recompute_activations)
    *expected, all_kept = measured(lambda f, part, *inputs: f(*inputs))
    torch.testing.assert_close(recomputed, expected, rtol=0, atol=0)
    assert kept < 0.86 * all_kept


@pytest.mark.parametrize(
    ('cls', 'place'), [(GMLP, 'blocks.0.mlp_channels.fc2'), (RepMLP, 'stages.0.0.ffn_block.ffn_fc2.conv')]
)
def test_random_numbers_are_the_same_when_recomputed(cls, place, monkeypatch):
    """As of an adapter with dropout in the place of a linear layer."""
    model = tiny(cls)
    parent, _, name = place.rpartition('.')
    setattr(model.get_submodule(parent), name, nn.Sequential(nn.Dropout(0.5), model.get_submodule(place)))
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        results.append(step(copy.deepcopy(model)))
        monkeypatch.setattr(sys.modules[cls.__module__], 'recompute_activations', lambda f, part, *inputs: f(*inputs))
    torch.testing.assert_close(*results)


def test_deepcopy(model):
    assert_equal_outputs(copy.deepcopy(model), model)


def test_pickle(model):
    assert_equal_outputs(pickle.loads(pickle.dumps(model)), model)


@torch.no_grad()
def test_deploy_form(model, variant):
    folded = reparameterize(model, check=False)
    assert relative_difference(folded(image()), model(image())) < 1e-5
    # ConvMLP's norm before a padded convolution and RepMLP's before shared weights cannot be folded.
    left = {
        name.rpartition('.')[2]
        for name, m in folded.named_modules()
        if isinstance(m, Affine | _BatchNorm) or (isinstance(m, nn.LayerNorm) and m.elementwise_affine)
    }
    assert left == {ConvMLP: {'connect_norm', 'norm'}, RepMLP: {'prebn1', 'head_norm'}}.get(variant[0], {'norm'})
    built = twin(folded, *variant, deploy=True)
    assert built.state_dict().keys() == folded.state_dict().keys()
    assert_equal_outputs(built, folded)


COMPILED = [
    *(pytest.param(cls, TINY[cls]['arch'], id=cls.__name__) for cls in FAMILIES),
    *(pytest.param(cls, arch, id=f'{cls.__name__}-{arch}', marks=pytest.mark.slow) for cls, arch in DISTINCT),
]


@pytest.mark.skipif(not hasattr(torch, 'accelerator'), reason='needs torch 2.6')
@pytest.mark.parametrize('cls, arch', COMPILED)
class TestCompiled:
    @pytest.mark.slow
    @torch.no_grad()
    def test_compile(self, cls, arch):
        """Without a graph break; what the backend makes of the graph is torch's to test."""
        torch.compiler.reset()
        model = randomise(build(cls, arch)).eval()
        assert_equal_outputs(torch.compile(model, fullgraph=True, backend='eager'), model)

    @pytest.mark.slow
    @torch.no_grad()
    def test_export(self, cls, arch):
        model = randomise(build(cls, arch)).eval()
        assert_equal_outputs(torch.export.export(model, (image(),)).module(), model)


@pytest.mark.skipif(not hasattr(torch, 'accelerator'), reason='needs torch 2.6')
@pytest.mark.parametrize('cls', FAMILIES)
def test_compiled_training_step(cls):
    """Without a graph break, though compiled code decides by itself what it keeps for the backward pass."""
    torch.compiler.reset()
    model = tiny(cls)
    expected, _, _ = step(copy.deepcopy(model))
    maps, _, _ = step(torch.compile(model, fullgraph=True, backend='eager'))
    torch.testing.assert_close(maps, expected)
