"""The wheel, as someone gets it who did not clone the repository."""

import configparser
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile

import pytest
from helpers import ROOT
from packaging.requirements import Requirement

import mlp_backbones
from mlp_backbones.utils.environment import STACKS

pytestmark = pytest.mark.slow


PIP = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']


def build_wheel(out):
    """The wheel, built in ``out`` from a copy of the tracked files: in the work tree, build/ would be left behind."""
    source = out / 'source'
    files = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard', '-z'], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split('\0')
    for name in filter(None, files):
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_symlink():
                (source / name).symlink_to(os.readlink(ROOT / name))
            else:
                (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*PIP, 'wheel', '--no-deps', '--no-build-isolation', '-w', out, source], check=True)
    (wheel,) = out.glob('*.whl')
    return wheel


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    return build_wheel(tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def site(wheel):
    """A folder with the wheel installed in it, and nothing else; and the names in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    site = wheel.parent / 'site'
    subprocess.run([*PIP, 'install', '--no-deps', '--target', site, wheel], check=True)
    return site, names


def test_two_builds_are_equal(wheel, tmp_path):
    assert build_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_bill_of_materials(site):
    folder, _ = site
    (bill,) = folder.glob('mlpbackbones-*.dist-info/sboms/mlpbackbones.cdx.json')
    bill = json.loads(bill.read_text())
    assert bill['bomFormat'] == 'CycloneDX'
    assert bill['metadata']['component']['version'] == mlp_backbones.__version__
    (found,) = importlib.metadata.distributions(path=[str(folder)])
    required = {r for r in found.requires if 'extra ==' not in r}
    assert {c['properties'][0]['value'] for c in bill['components']} == required
    assert {c['name'] for c in bill['components']} == {'torch', 'torchvision', 'numpy'}


def test_contents(site):
    _, names = site
    for folder in ('configs', 'tools'):
        tracked = {p for p in (ROOT / folder).rglob('*') if p.suffix in ('.py', '.sh', '.yml')}
        packed = {n for n in names if n.startswith(f'mlp_backbones/.mim/{folder}/')}
        assert packed == {f'mlp_backbones/.mim/{p.relative_to(ROOT)}' for p in tracked}
    assert 'mlp_backbones/.mim/model-index.yml' in names
    # The top level is the package and its metadata only.
    assert {n.split('/')[0] for n in names} == {'mlp_backbones', f'mlpbackbones-{mlp_backbones.__version__}.dist-info'}
    assert sorted(n.split('/')[0] for n in names)[0] == 'mlp_backbones'  # where mim looks


def test_configs_build_from_the_wheel(site, tmp_path):
    folder, _ = site
    code = """
import sys
from pathlib import Path
import torch, mlp_backbones
from mmengine.config import Config
root = Path(mlp_backbones.__file__).parent
assert root.parent == Path(sys.argv[1]), root
configs = sorted((root / '.mim/configs').glob('*/*.py'))
for path in configs:
    cfg = Config.fromfile(path)
    with torch.device('meta'):
        backbone = dict(cfg.model.backbone)
        scope, name = backbone.pop('type').split('.')
        assert scope == 'mlp_backbones'
        getattr(mlp_backbones, name)(**backbone)
print(len(configs), mlp_backbones.__version__)
"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, folder],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(folder)},
    )
    assert done.returncode == 0, done.stderr
    number = len(list((ROOT / 'configs').glob('*/*.py')))
    assert done.stdout.split() == [str(number), mlp_backbones.__version__]


def test_a_config_inherits_from_the_package(tmp_path):
    from mmengine.config import Config

    readme = (ROOT / 'README.md').read_text()
    example = readme[readme.index('# my_retinanet.py') :].split('```')[0]
    (tmp_path / 'my_retinanet.py').write_text(example)
    cfg = Config.fromfile(tmp_path / 'my_retinanet.py')
    assert cfg.model.backbone.arch == 'medium' and cfg.train_dataloader.batch_size == 4


@pytest.mark.parametrize('stack', STACKS)
def test_locked_requirements(stack):
    """The versions of setup.cfg and of the stack, each with its hashes."""
    text = (ROOT / f'requirements/{stack}.txt').read_text()
    assert not re.search(r'://|^-', text, re.MULTILINE)
    blocks = re.findall(r'^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)', text, re.MULTILINE)
    locked = {name: version for name, version, _ in blocks}
    assert len(locked) == len(blocks) == len(re.findall('^[a-z]', text, re.MULTILINE)) > 100
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    extra = config['options.extras_require']
    lists = [extra[name].splitlines() for name in (stack, 'deploy', 'test', 'docs')]
    wanted = [line for lines in lists for line in lines if line and not line.startswith(('#', '%'))]
    for line in (*wanted, *STACKS[stack].torch, *STACKS[stack].build):
        requirement = Requirement(line)
        name = re.sub(r'[-_.]+', '-', requirement.name).lower()
        assert requirement.specifier.contains(locked[name]), line
