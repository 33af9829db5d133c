import subprocess
import sys
from importlib import metadata

import pytest

import mlp_backbones
from mlp_backbones import environment

# A fresh interpreter in which some imports fail as on a machine where they are absent or broken.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {blocked!r} or name in {blocked!r}:
            raise {error}
sys.meta_path.insert(0, Block())
"""


def run(blocked, code, error="ModuleNotFoundError(f'No module named {name!r}', name=name)"):
    program = BLOCK.format(blocked=blocked, error=error) + code
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', program], capture_output=True, text=True)


def test_import_without_any_host():
    done = run(
        ['mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain'],
        """
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == 'mmengine' else find(name, package)
import mlp_backbones
print(mlp_backbones.__version__)
mlp_backbones.ConvMLP
""",
    )
    assert done.stdout.strip() == mlp_backbones.__version__
    assert 'MissingDependency: mmengine is not installed. Install it with:\n  pip install' in done.stderr


def test_import_with_a_broken_mmengine():
    done = run(
        ['mmengine.registry'],
        'import mlp_backbones\nfrom mlp_backbones import MODELS',
        error="ImportError('libGL.so.1: cannot open shared object file')",
    )
    assert 'mmengine is installed but does not import' in done.stderr and 'libGL' in done.stderr


def test_operators_missing():
    done = run(['mmcv._ext'], "from mlp_backbones.environment import require; require('mmdet')")
    assert done.returncode and 'no working compiled operators' in done.stderr and 'no-build-isolation' in done.stderr


def test_mismatched_versions():
    done = run(
        ['mmdet'],
        "from mlp_backbones.environment import require; require('mmdet')",
        error="AssertionError('MMCV==9.9 is used but incompatible')",
    )
    assert 'MMCV==9.9 is used but incompatible' in done.stderr and 'pip install' in done.stderr


def test_host_without_its_own_dependency():
    done = run(['pycocotools'], "from mlp_backbones.environment import require; require('mmdet')")
    assert "mmdet is installed, but it needs 'pycocotools'" in done.stderr


def test_both_stacks_at_once(monkeypatch):
    version = metadata.version
    monkeypatch.setattr(environment.metadata, 'version', lambda d: '2.1.0' if 'mmcv' in d else version(d))
    problem = environment.problem_with('mmcv')
    assert 'both onedl-mmcv and mmcv are installed' in problem and 'pip uninstall -y onedl-mmcv mmcv' in problem


def test_this_environment_is_sound():
    assert mlp_backbones.check_environment() == dict.fromkeys([*environment.HOSTS, 'mmcv.ops'])


def test_public_names():
    assert set(mlp_backbones.__all__) <= set(dir(mlp_backbones))
    for name in mlp_backbones.__all__:
        assert getattr(mlp_backbones, name) is not None
    with pytest.raises(AttributeError, match='ResNet.*ConvMLP'):
        mlp_backbones.ResNet  # noqa: B018
