import copy
import math
from collections import Counter

import numpy as np
import pytest
import torch
import torchvision
from fvcore.nn import FlopCountAnalysis
from helpers.families import TINY, Classifier
from helpers.goldens import difference, image, load
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.ops import StochasticDepth

from mlp_backbones import ConvMLP

MACS = {'small': 2.399, 'medium': 3.948, 'large': 9.904}  # 10^9 multiply-adds of the original's classifiers at 224x224
CHANNELS = {'small': (64, 128, 256, 512), 'medium': (64, 128, 256, 512), 'large': (96, 192, 384, 768)}
ARCH = TINY[ConvMLP]['arch']


@pytest.fixture(scope='module')
def golden():
    return load('convmlp_s')


@pytest.fixture(scope='module')
def classifier(golden):
    _, checkpoint, _ = golden
    model = Classifier(ConvMLP, 'small').eval()
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


@pytest.mark.parametrize('arch', ['small', *(pytest.param(a, marks=pytest.mark.slow) for a in ('medium', 'large'))])
def test_macs(arch):
    counted = FlopCountAnalysis(Classifier(ConvMLP, arch).eval(), torch.zeros(1, 3, 224, 224))
    counted.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    assert counted.total() / 1e9 == pytest.approx(MACS[arch], rel=0.005)


@pytest.mark.parametrize('alias', ['s', 'm', 'l', 'Small'])
def test_aliases(alias):
    with torch.device('meta'):
        model = ConvMLP(alias)
    assert model.out_channels == CHANNELS[{'s': 'small', 'm': 'medium', 'l': 'large'}[alias[0].lower()]]


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
    model = ConvMLP(ARCH).eval().to(memory_format=weights)
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
        features = ConvMLP(ARCH).eval()(torch.randn(1, 3, 64, 96))
    rois = torch.tensor([[0.0, 8.0, 4.0, 60.0, 50.0]])
    for feature, stride in zip(features, (4, 8, 16, 32)):
        expected = torchvision.ops.roi_align(feature, rois, 7, 1 / stride, aligned=True)
        torch.testing.assert_close(roi_align(feature, rois, 7, 1 / stride), expected)


def test_checkpointing_saves_memory():
    def kept(with_cp):
        model, sizes = ConvMLP(ARCH, with_cp=with_cp), []
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


def test_norm_cfg_keeps_the_names():
    names = ConvMLP(ARCH).state_dict().keys()
    model = ConvMLP(ARCH, norm_cfg=dict(type='SyncBN', requires_grad=False, eps=1e-3))
    assert model.state_dict().keys() == names
    norm = model.tokenizer.block[1]
    assert isinstance(norm, nn.SyncBatchNorm) and norm.eps == 1e-3 and not norm.weight.requires_grad
    assert isinstance(ConvMLP(ARCH, norm_cfg=dict(type='GN', num_groups=2)).tokenizer.block[1], nn.GroupNorm)


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
            backbone=dict(type='mlp_backbones.ConvMLP', arch=ARCH, out_indices=-1, final_norm=True),
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
    'kwargs, message',
    [
        (dict(arch='tiny'), "ConvMLP has no arch 'tiny'; choose from .*'large', 'm', 'medium', 's', 'small'"),
        (
            dict(arch=dict(dims=(1, 2, 3))),
            r"missing \['channels', 'conv_blocks', 'depths', 'mlp_ratios'\], unknown \[\]",
        ),
        (dict(arch={**ARCH, 'depth': 3}), r"missing \[\], unknown \['depth'\]"),
        (dict(arch={**ARCH, 'dims': (8, 16)}), r"arch\['dims'\] has 3 entries, got \(8, 16\)"),
        (dict(arch={**ARCH, 'channels': 7}), r"arch\['channels'\] must be even, got 7"),
        (dict(norm_cfg=dict(type='LN')), r"type is one of \['BN', 'BN2d', 'GN', 'SyncBN'\], got {'type': 'LN'}"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ConvMLP(**kwargs)
