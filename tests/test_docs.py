"""What README and the docs say is true: links lead somewhere, commands parse, code runs."""

import argparse
import glob
import pickle
import re
import runpy
import shlex
import shutil
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, build
from helpers.pages import BLOCK, blocks
from helpers.processes import tool
from helpers.training import history
from mmengine.config import Config

import mlp_backbones
from mlp_backbones.apis.zoo import get_entry
from mlp_backbones.checkpoints import files

PAGES = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md')] + sorted(
    (ROOT / 'docs').glob('*.md')
)


def every_block(language: str) -> list:
    """Every code block of a language, as test parameters called page:number."""
    found = []
    for page in PAGES:
        found += [pytest.param(page, text, id=f'{page.stem}:{i + 1}') for i, text in enumerate(blocks(page, language))]
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Links
# ----------------------------------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    """What headings are called in links, on the site and where repositories are shown."""
    titles = re.findall(r'^#+ (.*)', BLOCK.sub('', page.read_text()), re.MULTILINE)
    return {re.sub(r'[\s-]+', '-', re.sub(r'[^\w\s-]', '', title).strip().lower()) for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links(page):
    text = BLOCK.sub('', page.read_text())
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if '://' in target:
            continue
        path, _, anchor = target.partition('#')
        there = page if not path else page.parent / path
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_files_that_are_named(page):
    """Paths of configs and tools, with {a,b} and * as in a shell."""
    for name in re.findall(r'(?<![\w/.])(?:configs|tools|tests)/[\w/.*{},-]*[\w}*]', page.read_text()):
        parts = [part.split(',') for part in re.split(r'[{}]', name)]
        for choice in product(*parts):
            assert glob.glob(str(ROOT / ''.join(choice))), name


def test_every_page_is_on_the_site():
    def leaves(entry):
        children = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else None
        return [entry] if children is None else [leaf for child in children for leaf in leaves(child)]

    named = leaves(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav'])
    assert sorted(named) == sorted(page.name for page in PAGES)


@pytest.mark.slow
def test_site(tmp_path):
    pytest.importorskip('material')
    pytest.importorskip('mkdocstrings')
    commands = pytest.importorskip('mkdocs.commands.build')
    from mkdocs.config import load_config

    config = load_config(str(ROOT / 'mkdocs.yml'), strict=True, site_dir=str(tmp_path / 'site'))
    commands.build(config)
    api = (tmp_path / 'site/api/index.html').read_text()
    assert 'token_mixing' in api and 'id="mlp_backbones.reparameterize"' in api
    assert (tmp_path / 'site/configs/classification/convmlp_s_imagenet.py/index.html').is_file()


# ----------------------------------------------------------------------------------------------------------------------
# Commands
# ----------------------------------------------------------------------------------------------------------------------
class Captured(BaseException):
    pass


@pytest.fixture(scope='module')
def parsers():
    """Tool -> its argument parser."""

    def capture(self, *args, **kwargs):
        raise Captured(self)

    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', capture)
        for path in (ROOT / 'tools').glob('*.py'):
            with pytest.raises(Captured) as captured:
                runpy.run_path(str(path), run_name='__main__')
            found[path.name] = captured.value.args[0]
    return found


def python_tool(tool: str, args: list[str]) -> tuple[str, list[str]]:
    """What a script of the launchers starts, with which arguments."""
    if tool == 'dist_train.sh':
        return 'train.py', [args[0], *args[2:]]
    if tool == 'dist_test.sh':
        return 'test.py', [*args[:2], *args[3:]]
    if tool == 'slurm_train.sh':
        return 'train.py', [args[2], '--work-dir', *args[3:]]
    if tool == 'slurm_test.sh':
        return 'test.py', args[2:]
    return tool, args


@pytest.mark.parametrize('page, text', every_block('bash'))
def test_commands(page, text, parsers, capsys):
    for line in text.replace('\\\n', ' ').splitlines():
        for command in re.split(r'&&|\|', line):
            words = shlex.split(command.replace('<', '').replace('>', ''), comments=True)
            here = next((i for i, word in enumerate(words) if re.fullmatch(r'tools/[\w.]+', word)), None)
            if here is None:
                continue
            assert (ROOT / words[here]).is_file()
            tool, args = python_tool(Path(words[here]).name, words[here + 1 :])
            if not tool.endswith('.py'):
                continue
            try:
                parsers[tool].parse_args(args)
            except SystemExit:
                pytest.fail(f'{command}: {capsys.readouterr().err}')


OWN = [page for page in PAGES if page.stem != 'ecosystem']  # whose options are those of mim and of the frameworks


@pytest.mark.parametrize('page', OWN, ids=lambda page: page.stem)
def test_options_that_are_named(page, parsers):
    known = set().union(*(parser._option_string_actions for parser in parsers.values()))
    nested = [a for p in parsers.values() for a in p._actions if isinstance(a, argparse._SubParsersAction)]
    known = known.union(*(p._option_string_actions for a in nested for p in a.choices.values()))
    known = known.union(*(re.findall(r'--[\w-]+', p.read_text()) for p in (ROOT / 'tools').glob('*.sh')))
    named = re.findall(r'`(--[\w-]+)', BLOCK.sub('', page.read_text()))
    assert set(named) <= known


# ----------------------------------------------------------------------------------------------------------------------
# Python
# ----------------------------------------------------------------------------------------------------------------------
def is_config(text: str) -> bool:
    return text.startswith('# my_')


def is_program(text: str) -> bool:
    return bool(re.search(r'^(import|from) ', text, re.MULTILINE))


CONFIGS = [p for p in every_block('python') if is_config(p.values[1])]
SETTINGS = [p for p in every_block('python') if not is_config(p.values[1]) and not is_program(p.values[1])]
# Those of docs/inference.md run in test_inference.py, with weights and pictures; those of exported files in
# test_whole_models.py.
PROGRAMS = [p for p in every_block('python') if is_program(p.values[1]) and p.values[0].stem != 'inference']
PROGRAMS = [p for p in PROGRAMS if not re.search(r'deploy\.runtime|export\.load', p.values[1])]


OWN_DATA = {'my_detector.py', 'my_segmentor.py', 'my_classifier.py'}


def name_of(text: str) -> str:
    return re.match(r'# (my_\w+\.py)\n', text)[1]


@pytest.mark.parametrize('page, text', CONFIGS)
def test_config(page, text, tmp_path):
    for other in (p.values[1] for p in CONFIGS if p.values[0] == page):  # one may inherit another
        (tmp_path / name_of(other)).write_text(other)
    cfg = Config.fromfile(tmp_path / name_of(text))
    with torch.device('meta'):
        build(cfg)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.pipeline and (name_of(text) not in OWN_DATA or dataset.data_root == 'data/mine/')


def test_every_task_has_an_example():
    assert {name_of(p.values[1]) for p in CONFIGS} >= OWN_DATA


@pytest.mark.slow
@pytest.mark.parametrize('name', ['my_classifier.py', 'my_gray_classifier.py'])
def test_training(name, shapes, tmp_path):
    """On two classes, as the page has it, with the published weights' place taken by random ones."""
    for folder in ('train', 'val'):
        for kind in ('circle', 'square', *(['triangle'] if 'gray' in name else [])):
            shutil.copytree(shapes / 'imagenet' / folder / kind, tmp_path / f'data/{folder}' / kind)
    text = next(p.values[1] for p in CONFIGS if name_of(p.values[1]) == name)
    (tmp_path / name).write_text(text)
    settings = [f'data_root={tmp_path}/data/', 'train_cfg.max_epochs=1', 'model.backbone.init_cfg=None']
    settings += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    settings += ['val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False']
    _, said = tool('train.py', name, '--cfg-options', *settings, cwd=tmp_path)
    _, evaluation = history(tmp_path / 'work_dirs' / Path(name).stem)
    assert 'accuracy/top1' in evaluation[-1] and 'accuracy/top5' not in evaluation[-1]
    assert 'warning: the run ends after epoch 1, the learning rate' in said


@pytest.mark.slow
def test_training_on_four_bands(tmp_path):
    """As the page has it, from weights of RGB, on images of four channels."""
    random = np.random.RandomState(0)
    for number in range(8):
        path = tmp_path / 'data/bands' / ('val' if number % 4 == 3 else 'train') / ('land', 'water')[number // 4]
        path.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path / f'{number}.png'), random.randint(0, 256, (40, 48, 4)).astype(np.uint8))
    (text,) = (p.values[1] for p in CONFIGS if name_of(p.values[1]) == 'my_four_bands.py')
    (tmp_path / 'my_four_bands.py').write_text(text)
    torch.manual_seed(0)
    weights = mlp_backbones.ConvMLP('small', final_norm=True).state_dict()
    torch.save(weights, tmp_path / 'rgb.pth')
    settings = ['model.backbone.init_cfg.checkpoint=rgb.pth', 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2']
    settings += [f'{s}_dataloader.{k}' for s in ('train', 'val') for k in ('num_workers=0', 'persistent_workers=False')]
    _, said = tool('train.py', 'my_four_bands.py', '--cfg-options', *settings, cwd=tmp_path)
    assert 'tokenizer.block.0.weight adapted from 3 to 4 channels' in said
    training, evaluation = history(tmp_path / 'work_dirs/my_four_bands')
    assert 0 < training[-1]['loss'] < 100 and 'accuracy/top1' in evaluation[-1]


@pytest.mark.parametrize('page, text', SETTINGS)
def test_settings(page, text):
    """Parts of a config: what they set fits our classes."""
    settings = {}
    exec(text, settings)
    backbone = settings.get('backbone') or settings.get('model', {}).get('backbone')
    if backbone is None:
        assert {k for k in settings if not k.startswith('__')} <= {'optim_wrapper', 'custom_hooks', 'default_hooks'}
    else:
        with torch.device('meta'):
            mlp_backbones.MODELS.build(backbone)


@pytest.fixture
def random_weights(tmp_path, monkeypatch):
    """The zoo's models with random weights in place of the published ones; nothing is downloaded."""

    def cached(url: str) -> Path:
        name = next(n for n in mlp_backbones.list_models() if get_entry(n).get('Weights') == url)
        path = tmp_path / f'{name}.pth'
        torch.save(mlp_backbones.get_model(name).state_dict(), path)
        return path

    monkeypatch.setattr(files, 'cached', cached)


@pytest.mark.parametrize(
    'page, text',
    [
        pytest.param(*p.values, id=p.id, marks=pytest.mark.slow if re.search('pretrained|reparam', p.values[1]) else ())
        for p in PROGRAMS
    ],
)
def test_program(page, text, random_weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {}
    if 'resmlp_24.pdparams' in text:  # the one that goes on from what the reader has
        model = mlp_backbones.ResMLP('24')
        given = dict(model=SimpleNamespace(backbone=model), state_dict=model.state_dict())
        with open('resmlp_24.pdparams', 'wb') as file:
            pickle.dump({k: v.numpy() for k, v in model.state_dict().items()}, file)
    exec(text, given)
    if answer := re.search(r'^# (\[.*\])$', text, re.MULTILINE):  # what the block says that it prints
        assert capsys.readouterr().out.strip() == answer[1]
