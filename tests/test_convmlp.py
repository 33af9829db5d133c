import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from goldens import difference, image, load
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

from mlp_backbones import ConvMLP

# Millions of parameters and 10^9 multiply-adds at 224x224, of the original's classifiers.
PUBLISHED = {'small': (9.02292, 2.399), 'medium': (17.410504, 3.948), 'large': (42.72844, 9.904)}
CHANNELS = {'small': (64, 128, 256, 512), 'medium': (64, 128, 256, 512), 'large': (96, 192, 384, 768)}
TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), depths=(1, 2, 1), mlp_ratios=(2, 2, 2))


class Classifier(nn.Module):
    """The original's whole: norm, mean over positions, linear; its parameter names."""

    def __init__(self, arch, num_classes=1000):
        super().__init__()
        self.backbone = ConvMLP(arch, out_indices=-1, final_norm=True)
        self.head = nn.Linear(self.backbone.out_channels[-1], num_classes)

    def forward(self, x):
        return self.head(self.backbone(x)[-1].mean((2, 3)))


def randomise(model, seed=0):
    """Give every norm other statistics and parameters than 0 and 1, so that a forgotten one shows."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (_BatchNorm, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, _BatchNorm):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def golden():
    return load('convmlp_s')


@pytest.fixture(scope='module')
def classifier(golden):
    _, checkpoint, _ = golden
    model = Classifier('small').eval()
    model.load_state_dict({k if k.startswith('head.') else f'backbone.{k}': v for k, v in checkpoint.items()})
    return model


def test_logits_equal_the_original(golden, classifier):
    facts, _, answers = golden
    with torch.no_grad():
        logits = classifier(image(*facts['input'][:1], *facts['input'][2:], seed=0))
    assert difference(logits, answers['logits']) < 1e-5


def test_features_equal_the_original(golden):
    facts, checkpoint, answers = golden
    model = ConvMLP('small').eval()
    missing, unexpected = model.load_state_dict(checkpoint, strict=False)
    assert missing == [] and {k.split('.')[0] for k in unexpected} == {'norm', 'head'}
    n, _, height, width = facts['feature_input']
    with torch.no_grad():
        features = model(image(n, height, width, seed=1))
    assert [list(f.shape) for f in features] == facts['feature_shapes']
    for i, feature in enumerate(features):
        kept = feature if facts['feature_channels_kept'][i] == 'all' else feature[:, ::8]
        assert difference(kept, answers[f'feature{i}']) < 1e-5


def test_gradients_equal_the_original(golden, classifier):
    facts, _, _ = golden
    model = copy.deepcopy(classifier)
    weights = torch.from_numpy(np.random.RandomState(3).randn(1000).astype(np.float32))
    (model(image(1, *facts['input'][2:], seed=2)) @ weights).sum().backward()
    norms = {k.removeprefix('backbone.'): p.grad.norm().item() for k, p in model.named_parameters()}
    assert norms.keys() == facts['grad_norm'].keys()
    for name, norm in facts['grad_norm'].items():
        assert norms[name] == pytest.approx(norm, rel=1e-3), name


@pytest.mark.parametrize('arch', PUBLISHED)
def test_parameters_and_macs(arch):
    parameters, macs = PUBLISHED[arch]
    model = Classifier(arch).eval()
    assert sum(p.numel() for p in model.parameters()) == round(parameters * 1e6)
    counted = FlopCountAnalysis(model, torch.zeros(1, 3, 224, 224))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counted.total() / 1e9 == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize('alias', ['s', 'm', 'l', 'Small'])
def test_aliases(alias):
    with torch.device('meta'):
        model = ConvMLP(alias)
    assert model.out_channels == CHANNELS[{'s': 'small', 'm': 'medium', 'l': 'large'}[alias[0].lower()]]


def test_out_indices_pick_the_same_maps():
    torch.manual_seed(0)
    whole = randomise(ConvMLP(TINY)).eval()
    x = torch.randn(1, 3, 40, 56)
    expected = whole(x)
    for out_indices in [(0,), (1,), (2,), (0, 2), (1, 3)]:
        part = ConvMLP(TINY, out_indices=out_indices).eval()
        part.load_state_dict({k: v for k, v in whole.state_dict().items() if k in part.state_dict()})
        for index, feature in zip(out_indices, part(x)):
            assert torch.equal(feature, expected[index])


class CopyCounter(TorchDispatchMode):
    """Counts operations that move a tensor to another layout."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ('clone', 'copy_', 'contiguous', '_to_copy', 'transpose_copy', 'permute_copy'):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('weights', [torch.contiguous_format, torch.channels_last])
def test_no_layout_copy_between_the_stages(weights):
    model = ConvMLP(TINY).eval().to(memory_format=weights)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad(), CopyCounter() as counter:
        features = model(x)
    assert sum(counter.counts.values()) == 1 + 4, counter.counts  # the image itself, and each map as it leaves
    assert all(f.is_contiguous() for f in features)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), CopyCounter() as counter:
        features = model(x)
    assert not counter.counts, counter.counts
    assert all(f.is_contiguous(memory_format=torch.channels_last) for f in features)


def test_roi_align_of_mmcv_reads_the_maps_right():
    # It ignores strides: maps in the channels-last format would give garbage without an error.
    roi_align = pytest.importorskip('mmcv.ops').roi_align
    with torch.no_grad():
        features = ConvMLP(TINY).eval()(torch.randn(1, 3, 64, 96))
    rois = torch.tensor([[0.0, 8.0, 4.0, 60.0, 50.0]])
    for feature, stride in zip(features, (4, 8, 16, 32)):
        expected = torchvision.ops.roi_align(feature, rois, 7, 1 / stride, aligned=True)
        torch.testing.assert_close(roi_align(feature, rois, 7, 1 / stride), expected)


def test_channels_last_equals_contiguous():
    torch.manual_seed(0)
    model = randomise(ConvMLP(TINY, drop_path_rate=0.0))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 47, 64)
    for training in (False, True):
        ours, theirs = model.train(training)(x), last.train(training)(x.contiguous(memory_format=torch.channels_last))
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    sum(f.square().mean() for f in ours).backward()
    sum(f.square().mean() for f in theirs).backward()
    for (name, p), q in zip(model.named_parameters(), last.parameters()):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-4, msg=name)


def test_checkpointing_saves_memory():
    def kept(with_cp):
        model, sizes = ConvMLP(TINY, with_cp=with_cp), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(torch.randn(1, 3, 96, 96))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_drop_path_rises_within_each_stage():
    model = ConvMLP('small', drop_path_rate=0.1)
    for stage, depth in zip(model.stages, (2, 4, 2)):
        rates = [b.drop_path.p if isinstance(b.drop_path, StochasticDepth) else 0.0 for b in stage.blocks]
        assert rates == pytest.approx(np.linspace(0, 0.1, depth).tolist())
        assert all(b.drop_path.mode == 'row' for b in stage.blocks if isinstance(b.drop_path, StochasticDepth))


@pytest.mark.parametrize('frozen_stages', range(-1, 4))
def test_frozen_stages(frozen_stages):
    model = ConvMLP(TINY, frozen_stages=frozen_stages, final_norm=True)
    assert model.train() is model and model.eval() is model
    model.train()
    owners = {'tokenizer': 0, 'conv_stages': 1, 'stages.0': 2, 'stages.1': 3, 'stages.2': 3, 'norm': 3}
    for name, parameter in model.named_parameters():
        stage = next(s for prefix, s in owners.items() if name.startswith(prefix + '.'))
        assert parameter.requires_grad is (stage > frozen_stages), name
    before = {k: v.clone() for k, v in model.named_buffers()}
    model(torch.randn(2, 3, 64, 64))
    for name, buffer in model.named_buffers():
        stage = 0 if name.startswith('tokenizer') else 1
        assert torch.equal(before[name], buffer) is (stage <= frozen_stages), name


def test_norm_cfg_keeps_the_names():
    names = ConvMLP(TINY).state_dict().keys()
    model = ConvMLP(TINY, norm_cfg=dict(type='SyncBN', requires_grad=False, eps=1e-3))
    assert model.state_dict().keys() == names
    norm = model.tokenizer.block[1]
    assert isinstance(norm, nn.SyncBatchNorm) and norm.eps == 1e-3 and not norm.weight.requires_grad
    assert isinstance(ConvMLP(TINY, norm_cfg=dict(type='GN', num_groups=2)).tokenizer.block[1], nn.GroupNorm)


def test_initialisation():
    torch.manual_seed(0)
    model = ConvMLP('small', final_norm=True)
    linear = model.stages[1].blocks[0].channel_mlp1.fc1
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05) and not linear.bias.any()
    conv = model.conv_stages.conv_blocks[0][3]
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (conv.out_channels * 9)), rel=0.05)


def test_layer_depth():
    model = ConvMLP('small')
    expected = {
        'backbone.tokenizer.block.0.weight': 0,
        'backbone.conv_stages.conv_blocks.0.0.weight': 1,
        'backbone.conv_stages.conv_blocks.1.0.weight': 2,
        'backbone.conv_stages.downsample.weight': 2,
        'backbone.stages.0.blocks.0.norm1.weight': 3,
        'backbone.stages.0.downsample_mlp.downsample.bias': 4,
        'backbone.stages.1.blocks.3.connect.weight': 8,
        'backbone.stages.2.blocks.1.norm2.bias': 10,
        'backbone.norm.weight': 11,
        'head.fc.weight': 11,
    }
    assert {k: model.get_layer_depth(k, 'backbone.') for k in expected} == {k: (v, 12) for k, v in expected.items()}
    depths = [model.get_layer_depth(name)[0] for name, _ in model.named_parameters()]
    assert depths == sorted(depths) and set(depths) == set(range(11))


def test_layer_decay_of_mmpretrain():
    from mmengine.optim import build_optim_wrapper
    from mmpretrain.registry import MODELS

    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mlp_backbones.ConvMLP', arch=TINY, out_indices=-1, final_norm=True),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=24),
        )
    )
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
            constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    rates = {g['param_name']: g['lr'] for g in wrapper.optimizer.param_groups}
    assert rates['head.fc.weight'] == rates['backbone.norm.weight'] == 1.0
    assert rates['backbone.stages.2.blocks.0.norm1.weight'] == 0.5
    assert rates['backbone.tokenizer.block.0.weight'] == 0.5**6


@pytest.mark.parametrize(
    ('kwargs', 'error', 'words'),
    [
        (dict(arch='tiny'), ValueError, "'tiny'.*large.*medium.*small"),
        (dict(arch=3), TypeError, 'int'),
        (dict(arch=dict(dims=(1, 2, 3))), ValueError, 'channels.*conv_blocks'),
        (dict(arch={**TINY, 'depth': 3}), ValueError, "unknown.*'depth'"),
        (dict(arch={**TINY, 'dims': (8, 16)}), ValueError, '3 entries'),
        (dict(out_indices=4), ValueError, '-4 to 3.*4'),
        (dict(out_indices=(0, -5)), ValueError, '-4 to 3'),
        (dict(out_indices=()), ValueError, 'at least one'),
        (dict(out_indices=(3, -1)), ValueError, 'twice'),
        (dict(out_indices='3'), TypeError, 'out_indices'),
        (dict(out_indices=(1.0,)), TypeError, 'ints'),
        (dict(frozen_stages=4), ValueError, '-1 .* to 3'),
        (dict(frozen_stages=2, out_indices=(1,)), ValueError, '-1 .* to 1'),
        (dict(frozen_stages=None), TypeError, 'frozen_stages'),
        (dict(final_norm=True, out_indices=(0, 1)), ValueError, 'final_norm'),
        (dict(drop_path_rate=1.0), ValueError, r'\[0, 1\)'),
        (dict(drop_path_rate='0.1'), TypeError, 'drop_path_rate'),
        (dict(in_channels=0), ValueError, 'in_channels'),
        (dict(norm_cfg=dict(type='LN')), ValueError, 'BN.*GN.*SyncBN'),
        (dict(depth=50), TypeError, 'depth'),
    ],
)
def test_bad_arguments(kwargs, error, words):
    with pytest.raises(error, match=words):
        ConvMLP(**kwargs)


@pytest.mark.parametrize(
    ('shape', 'words'),
    [((1, 3, 31, 64), '31x64'), ((1, 1, 64, 64), r'\(N, 3, H, W\), got \(1, 1, 64, 64\)'), ((3, 64, 64), 'N, 3, H, W')],
)
def test_bad_input(shape, words):
    with pytest.raises(ValueError, match=words):
        ConvMLP(TINY)(torch.zeros(shape))


class TestPretrained:
    @pytest.mark.parametrize(
        'wrap',
        [
            lambda s: s,
            lambda s: {'state_dict': s},
            lambda s: {'model': {f'module.{k}': v for k, v in s.items()}},
            lambda s: {'state_dict': {**{f'backbone.{k}': v for k, v in s.items()}, 'head.fc.bias': torch.ones(2)}},
        ],
    )
    def test_fills_every_tensor(self, tmp_path, wrap):
        source = randomise(ConvMLP(TINY, final_norm=True))
        torch.save(wrap(source.state_dict()), tmp_path / 'x.pth')
        model = ConvMLP(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
        model.init_weights()
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())

    def test_another_arch_raises(self, tmp_path):
        torch.save(ConvMLP(TINY).state_dict(), tmp_path / 'x.pth')
        other = {**TINY, 'dims': (8, 16, 32), 'depths': (1, 2, 2)}
        model = ConvMLP(other, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(RuntimeError, match=r'missing \(14\).*\n.*another shape.*\(24, 24\)|stages.2.blocks.1'):
            model.init_weights()
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_not_a_checkpoint(self, tmp_path):
        torch.save([1, 2], tmp_path / 'x.pth')
        with pytest.raises(RuntimeError, match='list'):
            ConvMLP(TINY, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth'))).init_weights()
