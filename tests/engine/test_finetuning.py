"""What docs/finetuning.md says of stages, learning rates, moving averages and adapters."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT, build
from helpers.families import TINY, tiny
from helpers.pages import blocks
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS
from torch.nn.modules.batchnorm import _BatchNorm

from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP, reparameterize

PAGE = ROOT / 'docs/finetuning.md'


def parameters_of(model, *names: str) -> set[str]:
    return {n for n, _ in model.named_parameters() if n.startswith(tuple(f'{name}.' for name in names))}


def parameters_of_stage(model, stage: int) -> set[str]:
    own = {id(p) for module in model.stage_modules(stage) for p in module.parameters()}
    return {n for n, p in model.named_parameters() if id(p) in own}


@pytest.fixture
def config(tmp_path):
    """A function from the name of a config of the page to the config."""

    def read(name: str) -> Config:
        text = next(text for text in blocks(PAGE, 'python') if text.startswith(f'# {name}\n'))
        (tmp_path / name).write_text(text)
        cfg = Config.fromfile(tmp_path / name)
        cfg.model.backbone.init_cfg = None
        return cfg

    return read


class TestStages:
    @pytest.mark.parametrize('cls', [ConvMLP, RepMLP])
    def test_table(self, cls):
        (row,) = re.findall(rf'^\| `{cls.__name__}` \|(.*)\|$', PAGE.read_text(), re.MULTILINE)
        named = [re.findall(r'`([\w.]+)`', cell) for cell in row.split('|')]
        model = cls(**TINY[cls], final_norm=True)
        assert len(named) == model.num_stages == 4
        for stage, names in enumerate(named):
            assert all(parameters_of(model, name) for name in names)
            assert parameters_of(model, *names) == parameters_of_stage(model, stage)

    @pytest.mark.parametrize('cls', [ResMLP, GMLP])
    def test_of_blocks(self, cls):
        model = cls(**{**TINY[cls], 'arch': {**TINY[cls]['arch'], 'depth': 8}}, final_norm=True, cross_window=True)
        assert parameters_of_stage(model, 0) == parameters_of(model, 'stem', 'blocks.0')
        assert parameters_of_stage(model, 5) == parameters_of(model, 'blocks.5', 'propagations.5')
        assert parameters_of_stage(model, 7) == parameters_of(model, 'blocks.7', 'propagations.7', 'norm')
        assert 'propagations.5.conv.weight' in parameters_of_stage(model, 5)


def test_freezing(config):
    backbone = build(config('my_frozen_detector.py')).backbone.train()
    frozen = {n for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == parameters_of(backbone, 'tokenizer', 'conv_stages')
    assert not any(m.training for m in backbone.modules() if isinstance(m, _BatchNorm))


def test_learning_rate_per_stage(config):
    cfg = config('my_staged_detector.py')
    model = build(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rates = {id(p): group['lr'] for group in wrapper.optimizer.param_groups for p in group['params']}
    multipliers = {0: 0.05, 1: 0.1, 2: 0.2, 3: 0.5}
    for stage, multiplier in multipliers.items():
        names = parameters_of_stage(model.backbone, stage)
        (rate,) = {rates[id(model.backbone.get_parameter(name))] for name in names}
        assert rate == pytest.approx(1e-4 * multiplier)
    outside = {rates[id(p)] for n, p in model.named_parameters() if not n.startswith('backbone.')}
    assert outside == {1e-4}


def test_moving_average(config):
    """Of weights and statistics; evaluation and checkpoints have it in the place of the weights."""
    (settings,) = config('my_averaged_detector.py').custom_hooks
    assert settings.pop('priority') == 'ABOVE_NORMAL'
    hook, model = HOOKS.build(settings), tiny(ConvMLP)
    runner = SimpleNamespace(model=model, iter=0, epoch=0)
    hook.before_run(runner)
    hook.after_train_iter(runner, 0)  # the first one is copied
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    hook.after_train_iter(runner, 1)
    after = copy.deepcopy(model.state_dict())
    checkpoint = dict(state_dict=copy.deepcopy(model.state_dict()))
    hook.before_save_checkpoint(runner, checkpoint)
    checkpoint = copy.deepcopy(checkpoint)
    hook.before_val_epoch(runner)
    for name in ('tokenizer.block.0.weight', 'tokenizer.block.1.running_mean', 'stages.2.blocks.0.norm1.bias'):
        expected = before[name] + 1e-3 * (after[name] - before[name])
        torch.testing.assert_close(model.state_dict()[name], expected)
        torch.testing.assert_close(checkpoint['state_dict'][name], expected)
        torch.testing.assert_close(checkpoint['ema_state_dict'][f'module.{name}'], after[name])


class TestAdapters:
    @pytest.fixture
    def page(self):
        """What the page's program defines, without what it does with the published weights."""
        (text,) = [text for text in blocks(PAGE, 'python') if 'class LoRA' in text]
        defined: dict = {}
        exec(text[: text.index('def build')], defined)
        return SimpleNamespace(**defined)

    @staticmethod
    def trained(page, cls):
        """A backbone whose adapters differ from their initial values."""
        model = tiny(cls, final_norm=True)
        page.add_lora(model, rank=2)
        for name, parameter in model.named_parameters():
            if '.up.' in name:
                torch.nn.init.normal_(parameter, std=0.1)
        return model.eval()

    @pytest.mark.parametrize('cls', [ConvMLP, ResMLP, GMLP])
    def test_it_saves_and_loads(self, page, cls, tmp_path):
        x, model = torch.randn(1, 3, 64, 96), self.trained(page, cls)
        torch.save(model.state_dict(), tmp_path / 'x.pth')
        other = tiny(cls, seed=1, final_norm=True).eval()
        page.add_lora(other, rank=2)
        assert not any(map(torch.equal, other(x), model(x)))
        other.load_state_dict(torch.load(tmp_path / 'x.pth'))
        assert all(map(torch.equal, other(x), model(x)))

    @pytest.mark.parametrize('cls', [ConvMLP, ResMLP, GMLP])
    def test_adapters_alone_save_and_load(self, page, cls):
        """Within a larger model too, as torch promises of ``strict=False``."""
        x, model = torch.randn(1, 3, 64, 96), self.trained(page, cls)
        adapters = {k: v for k, v in model.state_dict().items() if '.up.' in k or '.down.' in k}
        assert len(adapters) == 2 * sum(isinstance(m, page.LoRA) for m in model.modules()) > 0
        other = tiny(cls, final_norm=True).eval()
        page.add_lora(other, rank=2)
        missing, unexpected = other.load_state_dict(adapters, strict=False)
        assert not unexpected
        # torch itself does without num_batches_tracked, which very old files lack.
        assert {k for k in model.state_dict() if 'num_batches' not in k} == {*missing, *adapters}
        assert all(map(torch.equal, other(x), model(x)))
        page.add_lora(plain := tiny(cls, final_norm=True).eval(), rank=2)
        parent = torch.nn.ModuleDict(dict(body=plain, head=torch.nn.Linear(2, 2)))
        parent.load_state_dict({f'body.{k}': v for k, v in adapters.items()}, strict=False)
        assert all(map(torch.equal, plain(x), model(x)))

    @pytest.mark.parametrize('cls', [ConvMLP, ResMLP, GMLP])
    def test_merging(self, page, cls):
        x, model = torch.randn(1, 3, 64, 96), self.trained(page, cls)
        expected = model(x)
        page.merge_lora(model)
        assert model.state_dict().keys() == tiny(cls, final_norm=True).state_dict().keys()
        for form in (model, reparameterize(model)):
            for ours, theirs in zip(form(x), expected):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
