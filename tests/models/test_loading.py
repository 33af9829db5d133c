"""Torch's loading contract holds for our backbones, wherever they are; weights of RGB serve any number of channels."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from helpers.families import FAMILIES, TINY, tiny
from helpers.goldens import FOLDER, load
from mmengine.runner.checkpoint import load_checkpoint, load_state_dict
from torch import nn

from mlp_backbones import ConvMLP, RepMLP, ResMLP
from mlp_backbones.apis.zoo import get_model
from mlp_backbones.checkpoints import CheckpointError, read_checkpoint
from mlp_backbones.models.backbones.base import BaseBackbone
from mlp_backbones.models.backbones.loading import adapt_input_weight, fill_model, fit_model

PADDLE = FOLDER.parent / 'paddle'


class Parent(nn.Module):
    """A model with two of our backbones and a head, as torch's users write it."""

    def __init__(self, seed=0):
        super().__init__()
        self.first, self.second = tiny(ConvMLP, seed=seed), tiny(ResMLP, seed=seed)
        self.head = nn.Linear(2, 3)


class LoRALinear(nn.Module):
    """An adapter around a linear layer."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


def reported(names):
    """Those that torch reports as missing: a BatchNorm's counter may be absent, as in files of torch before 1.0."""
    return sorted(name for name in names if not name.endswith('num_batches_tracked'))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


class TestContract:
    def test_a_head_alone(self):
        parent = Parent()
        before = copy.deepcopy(parent.state_dict())
        keys = parent.load_state_dict({'head.weight': torch.ones(3, 2)}, strict=False)
        assert keys.unexpected_keys == [] and sorted(keys.missing_keys) == reported(before.keys() - {'head.weight'})
        assert equal(parent.state_dict(), {**before, 'head.weight': torch.ones(3, 2)})

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_any_single_tensor(self, cls):
        source, model = tiny(cls, seed=1).state_dict(), tiny(cls)
        for name, tensor in source.items():
            keys = model.load_state_dict({name: tensor}, strict=False)
            assert keys.unexpected_keys == [] and sorted(keys.missing_keys) == reported(source.keys() - {name})
        assert equal(model.state_dict(), source)

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_nothing_and_a_stranger(self, cls):
        model = tiny(cls)
        before = copy.deepcopy(model.state_dict())
        assert sorted(model.load_state_dict({}, strict=False).missing_keys) == reported(before)
        assert model.load_state_dict({'other': torch.ones(1)}, strict=False).unexpected_keys == ['other']
        assert equal(model.state_dict(), before)

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_strict_is_torchs(self, cls):
        state = tiny(cls).state_dict()
        name = next(iter(state))
        with pytest.raises(RuntimeError, match=f'Missing key.* "{name}"'):
            tiny(cls).load_state_dict({k: v for k, v in state.items() if k != name})
        with pytest.raises(RuntimeError, match='Unexpected key.* "more"'):
            tiny(cls).load_state_dict({**state, 'more': torch.ones(1)})

    def test_two_backbones(self):
        source, parent = Parent(seed=1), Parent()
        parent.load_state_dict(source.state_dict())
        assert equal(parent.state_dict(), source.state_dict())
        other = Parent(seed=2)
        parent.first.load_state_dict(other.first.state_dict())
        parent.load_state_dict({f'second.{k}': v for k, v in other.second.state_dict().items()}, strict=False)
        assert equal(parent.first.state_dict(), other.first.state_dict())
        assert equal(parent.second.state_dict(), other.second.state_dict())
        assert equal(parent.head.state_dict(), source.head.state_dict())

    def test_foreign_names_within_a_parent(self):
        parent = Parent()
        foreign = read_checkpoint(PADDLE / 'resmlp.pdparams')
        keys = parent.load_state_dict({f'second.{k}': v for k, v in foreign.items()}, strict=False)
        assert all(key.startswith(('first.', 'head.')) for key in keys.missing_keys)
        expected = tiny(ResMLP)
        expected.load_state_dict(foreign, strict=False)
        assert equal(parent.second.state_dict(), expected.state_dict())
        # mmengine's way, which passes `strict` on as True.
        other = Parent()
        load_state_dict(other, {f'second.{k}': v for k, v in foreign.items()})
        assert equal(other.second.state_dict(), expected.state_dict())

    def test_one_bare_file_and_two_backbones(self):
        parent = Parent()
        with pytest.raises(CheckpointError, match=r'x.pth is of one backbone, the model has first, second: load it in'):
            fit_model(parent, tiny(ConvMLP).state_dict(), 'x.pth')

    def test_what_does_not_fit_is_listed(self):
        other = ConvMLP({**TINY[ConvMLP]['arch'], 'dims': (8, 16, 32), 'depths': (1, 2, 2)})
        message = (
            r'x.pth does not fill this ConvMLP \(is it another arch\?\). Names: .*\n'
            r'  missing \(15\): stages.2.blocks.1.channel_mlp1.fc1.bias, .*, and 7 more\n'
            r'  of another shape \(17\): .*\n'
            r'  in the file but not in the backbone \(0\): none'
        )
        with pytest.raises(CheckpointError, match=message):
            other.fit(tiny(ConvMLP).state_dict(), 'x.pth')

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_adapters(self, cls):
        def wrapped(seed):
            model = tiny(cls, seed=seed)
            for name, module in list(model.named_modules()):
                if isinstance(module, nn.Linear):
                    parent, _, child = name.rpartition('.')
                    setattr(model.get_submodule(parent), child, LoRALinear(module))
            return model

        source, model = wrapped(1), wrapped(0)
        model.load_state_dict(source.state_dict())
        assert equal(model.state_dict(), source.state_dict())
        adapters = {k: v for k, v in source.state_dict().items() if k.endswith(('.down', '.up'))}
        assert wrapped(2).load_state_dict(adapters, strict=False).unexpected_keys == []

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_copies_and_pickles_load(self, cls):
        source, model = tiny(cls, seed=1), tiny(cls)
        for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), saved_and_loaded(model)):
            made.load_state_dict(source.state_dict())
            assert equal(made.state_dict(), source.state_dict())
            assert not equal(made.state_dict(), model.state_dict())
            # The hook is the copy's own: names are translated by its settings, not by the original's.
            assert next(iter(made._load_state_dict_pre_hooks.values())).hook.__self__ is made

    def test_a_subclass_of_the_base_alone(self, tmp_path):
        class Mine(BaseBackbone):
            def __init__(self, **kwargs):
                super().__init__([4, 8], [2, 4], out_indices=(0, 1), **kwargs)
                self.layers = nn.ModuleList([nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 8, 2, 2)])
                self._finish()

            def stage_modules(self, index):
                return [self.layers[index]]

        source = Mine()
        Mine().load_state_dict(source.state_dict())
        torch.save(source.state_dict(), tmp_path / 'x.pth')
        model = Mine(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
        model.init_weights()
        assert equal(model.state_dict(), source.state_dict())

    def test_a_subclass_of_a_family_under_any_name(self):
        class Mine(ResMLP):
            pass

        model = Mine(**TINY[ResMLP])
        keys = model.load_state_dict(read_checkpoint(PADDLE / 'resmlp.pdparams'), strict=False)
        assert keys.missing_keys == []

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_adapted_once(self, cls, monkeypatch):
        """From a file to the model the names are translated once."""
        calls = []

        def counted(dialect):
            return dialect._replace(convert=lambda tensors: calls.append(dialect.name) or dialect.convert(tensors))

        monkeypatch.setattr(cls, 'family', cls.family._replace(dialects=tuple(map(counted, cls.family.dialects))))
        path = PADDLE / f'{cls.family.name.lower()}.pdparams'
        model = tiny(cls, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
        model.init_weights()
        assert calls == ['PaddleViT']

    @pytest.mark.parametrize('cls', FAMILIES)
    @pytest.mark.parametrize('deploy', [False, True])
    def test_reading_changes_no_module(self, cls, deploy):
        model = tiny(cls, deploy=deploy).eval()
        modules, settings = dict(model.named_modules()), vars(model).copy()
        before = copy.deepcopy(model.state_dict())
        other = tiny(cls, seed=1).eval()
        if deploy:
            other.switch_to_deploy()
        model.adapt(other.state_dict())
        model.fit(other.state_dict(), 'x')
        assert dict(model.named_modules()) == modules and vars(model) == settings
        assert equal(model.state_dict(), before)


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class TestInputChannels:
    """Weights of RGB in a model of 1, 4 or 12 channels, in every dialect and every way of loading."""

    @pytest.mark.parametrize('channels', [1, 2, 4, 12])
    def test_is_timms(self, channels):
        from timm.models import adapt_input_conv

        weight = torch.randn(8, 3, 5, 5)
        torch.testing.assert_close(adapt_input_weight(weight, channels), adapt_input_conv(channels, weight.clone()))
        assert adapt_input_weight(weight.half(), channels).dtype == torch.float16

    @pytest.mark.parametrize('cls', FAMILIES)
    def test_gray_as_rgb_gives_the_same(self, cls):
        rgb, gray = tiny(cls).eval(), tiny(cls, seed=1, in_channels=1).eval()
        gray.load_state_dict(rgb.state_dict())
        x = torch.randn(2, 1, 64, 96)
        with torch.no_grad():
            for a, b in zip(gray(x), rgb(x.expand(-1, 3, -1, -1))):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize('channels', [4, 12])
    @pytest.mark.parametrize('cls', FAMILIES)
    def test_channels_that_repeat_rgb_give_the_same(self, cls, channels):
        rgb, more = tiny(cls).eval(), tiny(cls, seed=1, in_channels=channels).eval()
        more.load_state_dict(rgb.state_dict())
        x = torch.randn(1, 3, 64, 64)
        if channels == 4:  # a constant over the channels, since 3/4 of each of four is not all of each of three
            x = x[:, :1].expand(-1, 3, -1, -1)
            weight = rgb.get_parameter(f'{cls.input_layer}.weight')
            with torch.no_grad():
                weight.copy_(weight.mean(1, keepdim=True).expand_as(weight))
            more.load_state_dict(rgb.state_dict())
        wide = x.repeat(1, 4, 1, 1)[:, :channels]
        with torch.no_grad():
            for a, b in zip(more(wide), rgb(x)):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize('way', ['init_cfg', 'load_state_dict', 'load_checkpoint', 'fill_model'])
    @pytest.mark.parametrize('cls', FAMILIES)
    def test_every_way_of_loading_a_foreign_file(self, cls, way, monkeypatch, tmp_path):
        lines = []
        monkeypatch.setattr('mlp_backbones.models.backbones.loading.print_log', lambda text, **_: lines.append(text))
        path = PADDLE / f'{cls.family.name.lower()}.pdparams'
        rgb, model = tiny(cls), tiny(cls, in_channels=4)
        rgb.load_state_dict(read_checkpoint(path), strict=False)
        lines.clear()
        if way == 'init_cfg':
            model.init_cfg = dict(type='Pretrained', checkpoint=str(path))
            model.init_weights()
        elif way == 'load_state_dict':
            model.load_state_dict(read_checkpoint(path), strict=False)
        elif way == 'load_checkpoint':
            torch.save(read_checkpoint(path), tmp_path / 'x.pth')
            load_checkpoint(model, str(tmp_path / 'x.pth'))
        else:
            parent = nn.Module()
            parent.backbone = model
            fill_model(parent, read_checkpoint(path), path)
        name = f'{cls.input_layer}.weight'
        expected = {**rgb.state_dict(), name: adapt_input_weight(rgb.state_dict()[name], 4)}
        assert equal(model.state_dict(), expected)
        assert sum(f'{name} adapted from 3 to 4 channels' in line for line in lines) == 1

    @pytest.mark.slow
    def test_the_original_deploy_form(self):
        _, checkpoint, _ = load('repmlpnet_t224_deploy')
        checkpoint = {k: v for k, v in checkpoint.items() if not k.startswith('head')}
        rgb, gray = (RepMLP('t224', in_channels=n, out_indices=(0,), deploy=True).eval() for n in (3, 1))
        for model in (rgb, gray):
            model.load_state_dict(checkpoint, strict=False)
        x = torch.from_numpy(np.random.RandomState(0).rand(1, 1, 224, 224).astype(np.float32))
        with torch.no_grad():
            torch.testing.assert_close(gray(x)[0], rgb(x.expand(-1, 3, -1, -1))[0], atol=1e-4, rtol=1e-4)

    def test_a_model_of_the_zoo(self, tmp_path):
        torch.save(load('convmlp_s')[1], tmp_path / 'x.pth')
        model = get_model('convmlp_s', pretrained=tmp_path / 'x.pth', backbone=dict(in_channels=4))
        weight = load('convmlp_s')[1]['tokenizer.block.0.weight']
        assert torch.equal(model.backbone.tokenizer.block[0].weight, adapt_input_weight(weight, 4))

    def test_other_numbers_are_refused(self):
        with pytest.raises(
            CheckpointError, match=r'tokenizer.block.0.weight: \(4, 5, 3, 3\) in the file, \(4, 3, 3, 3\)'
        ):
            tiny(ConvMLP).fit(tiny(ConvMLP, in_channels=5).state_dict(), 'x')
