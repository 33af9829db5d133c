"""The backbones on a GPU: `TEST_CUDA=1 python -m pytest tests/cuda`. Needs torch and mmengine only."""

import copy

import pytest
import torch
from helpers.families import FAMILIES, TINY, VARIANTS, Classifier, named, randomise
from helpers.goldens import GOLDENS, difference, image, load

import mlp_backbones
from mlp_backbones import reparameterize
from mlp_backbones.deploy.reparameterize import relative_difference

if not torch.cuda.is_available():
    pytest.skip('needs a GPU, and TEST_CUDA=1', allow_module_level=True)

DEVICE = 'cuda'
PRECISIONS = {'float32': 1e-4, 'bfloat16': 1e-1, 'float16': 2e-2}  # of autocast -> bound of the relative difference
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


@pytest.fixture(autouse=True)
def float32():
    """Convolutions in float32 too, not in TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def images(cls, arch, batch=2):
    """A batch of the native size."""
    with torch.device('meta'):
        size = getattr(cls(arch), 'img_size', (224, 224))
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


def skip_what_overflows(model, precision):
    if precision == 'float16' and model.amp_dtype != 'float16':
        pytest.skip(f'{type(model).__name__} overflows in float16, and --amp takes {model.amp_dtype}')


def step(model, x, precision):
    """The maps of a training step, and gradients by the parameters' names."""
    scaler = torch.amp.GradScaler(DEVICE, enabled=precision == 'float16')
    with torch.autocast(DEVICE, getattr(torch, precision), enabled=precision != 'float32'):
        maps = model(x)
        loss = sum(f.float().square().mean() for f in maps)
    scaler.scale(loss).backward()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    scaler.unscale_(optimizer)
    return [f.detach().float().cpu() for f in maps], {name: p.grad for name, p in model.named_parameters()}


def assert_close_gradients(ours, theirs, bound):
    """Relative to each one's largest entry; of biases that a BatchNorm takes away again, both have only rounding."""
    rounding = 1e-5 * max(gradient.abs().max().item() for gradient in theirs.values())
    for name, expected in theirs.items():
        error = (ours[name].cpu() - expected.cpu()).abs().max().item()
        assert error < bound * expected.abs().max().item() + rounding, name


@pytest.fixture(scope='module', params=VARIANTS, ids=lambda v: f'{v[0].__name__}-{v[1]}')
def variant(request):
    """A model on the CPU, an image, and what a training step of it answers there."""
    cls, arch = request.param
    torch.manual_seed(0)
    model = randomise(cls(arch, final_norm=True, drop_path_rate=0.0)).train()
    x = images(cls, arch)
    return model, x, step(copy.deepcopy(model), x, 'float32')


@pytest.mark.parametrize('memory_format', FORMATS)
@pytest.mark.parametrize('precision', PRECISIONS)
def test_training_step(variant, precision, memory_format):
    model, x, (expected, gradients) = variant
    skip_what_overflows(model, precision)
    model = copy.deepcopy(model).to(DEVICE, memory_format=FORMATS[memory_format])
    maps, grads = step(model, x.to(DEVICE, memory_format=FORMATS[memory_format]), precision)
    assert relative_difference(maps, expected) < PRECISIONS[precision]
    for name, gradient in grads.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name
    if precision == 'float32':
        assert_close_gradients(grads, gradients, 5e-2)  # BatchNorms of two images magnify rounding


@pytest.mark.parametrize('precision', PRECISIONS)
@torch.no_grad()
def test_deploy_form(variant, precision):
    model, x, _ = variant
    skip_what_overflows(model, precision)
    model = copy.deepcopy(model).to(DEVICE).eval()
    folded = reparameterize(model, check=False)
    with torch.autocast(DEVICE, getattr(torch, precision), enabled=precision != 'float32'):
        maps = [[f.float().cpu() for f in m(x.to(DEVICE))] for m in (folded, model)]
    assert relative_difference(*maps) < PRECISIONS[precision]


@pytest.mark.parametrize('name', GOLDENS)
@torch.no_grad()
def test_answers_of_the_originals(name):
    facts, checkpoint, answers = load(name)
    settings = dict(GOLDENS[name])
    model = Classifier(getattr(mlp_backbones, settings.pop('type')), settings.pop('arch'), **settings).eval()
    missing = model.backbone.load_state_dict(checkpoint, strict=False).missing_keys
    assert missing == [] and model.head.load_state_dict({k: checkpoint[f'head.{k}'] for k in ('weight', 'bias')})
    x = image(*facts['input'][:1], *facts['input'][2:], seed=0)
    assert difference(model.to(DEVICE)(x.to(DEVICE)).cpu(), answers['logits']) < 1e-4


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('cls', FAMILIES, ids=named)
def test_compiled(cls, deploy):
    torch.compiler.reset()
    torch.manual_seed(0)
    model = randomise(cls(**TINY[cls])).to(DEVICE).train(not deploy)
    if deploy:
        model = reparameterize(model, check=False)
    x = torch.randn(2, 3, 64, 64, device=DEVICE)
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True)
    if deploy:
        with torch.no_grad():
            assert relative_difference(compiled(x), twin(x)) < 1e-4
        return
    (ours, gradients), (theirs, expected) = step(compiled, x, 'float32'), step(twin, x, 'float32')
    assert relative_difference(ours, theirs) < 1e-4
    assert_close_gradients({k.removeprefix('_orig_mod.'): g for k, g in gradients.items()}, expected, 1e-2)
