"""What a tool says of an error: this package's own exceptions in one message, everything else with its traceback."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest
import torch

import mlp_backbones
from mlp_backbones.deploy.runtime import RuntimeProblem
from mlp_backbones.utils import errors
from mlp_backbones.utils.checks import check_int
from mlp_backbones.utils.cli import run_tool

MODULES = [m.name for m in pkgutil.walk_packages(mlp_backbones.__path__, 'mlp_backbones.')]
CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


def test_exceptions_are_all_in_one_module():
    for name in MODULES:
        for _, thing in inspect.getmembers(importlib.import_module(name), inspect.isclass):
            if thing is RuntimeProblem:  # of a file that stands alone, and imports nothing of ours
                continue
            if issubclass(thing, BaseException) and thing.__module__.startswith('mlp_backbones'):
                assert thing.__module__ == 'mlp_backbones.utils.errors' and issubclass(thing, errors.Error)


@pytest.mark.parametrize('cls', CLASSES, ids=lambda c: c.__name__)
def test_own_exceptions_are_one_message(cls, capsys):
    def main():
        raise cls('x is 3; it must be 4')

    assert run_tool(main) == 1
    assert capsys.readouterr().err == '\nerror: x is 3; it must be 4\n'


def test_they_are_of_the_kinds_that_python_has():
    assert issubclass(errors.InvalidValue, ValueError) and issubclass(errors.InvalidType, TypeError)
    assert issubclass(errors.InvalidState, RuntimeError) and issubclass(errors.CheckpointError, RuntimeError)
    assert issubclass(errors.CheckpointNotFound, FileNotFoundError)
    assert issubclass(errors.MissingDependency, ImportError)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(hidden=3), "SimpleFeaturePyramid.__init__() got an unexpected keyword argument 'hidden'"),
        (
            dict(norm_cfg=dict(type='LN')),
            "norm_cfg must be a dict whose type is one of ['BN', 'BN2d', 'GN', 'SyncBN']",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_message(settings, message, capsys):
    """Where the registry says it, and where the class does."""
    neck = dict(type='mlp_backbones.SimpleFeaturePyramid', in_channels=16, **settings)
    assert run_tool(lambda: mlp_backbones.MODELS.build(neck)) == 1
    assert capsys.readouterr().err.startswith(f'\nerror: {message}')


class TestTraceback:
    """Errors that are raised in the package, and that nobody can fix by other input."""

    def test_of_a_bug(self):
        with pytest.raises(TypeError, match="'>' not supported"):
            run_tool(lambda: check_int('ConvMLP', 'in_channels', 3, most=None))

    def test_of_a_broken_layer(self):
        model = mlp_backbones.ConvMLP('small')
        model.tokenizer = None
        with pytest.raises(TypeError, match='not callable'):
            run_tool(lambda: model(torch.zeros(1, 3, 32, 32)))

    def test_of_a_bug_in_what_the_registry_builds(self):
        class Broken(mlp_backbones.SimpleFeaturePyramid):
            def __init__(self):
                super().__init__(in_channels=16)
                len(None)

        with pytest.raises(TypeError, match='has no len'):
            run_tool(lambda: mlp_backbones.MODELS.build(dict(type=Broken)))

    def test_of_too_little_memory(self):
        model = mlp_backbones.ResMLP('12')
        images = torch.zeros(1).expand(1 << 32, 3, 224, 224)  # 2600 TB as soon as they are copied
        with pytest.raises(RuntimeError, match='memory') as raised:
            run_tool(lambda: model(images))
        assert raised.traceback[-1].path.name == 'isotropic.py'  # no line of torch's own is behind it


@pytest.mark.slow
def test_imports_without_modules_of_posix(tmp_path):
    """As on Windows."""
    code = f"""
import importlib, sys
for name in ('fcntl', 'grp', 'pwd', 'resource', 'termios'):
    sys.modules[name] = None
for name in {MODULES}:
    importlib.import_module(name)
from mlp_backbones.datasets import make_shapes
from mlp_backbones.datasets.faults import FaultList
make_shapes('shapes', 'classification', num_train=1, num_val=1, verbose=False)
faults = FaultList('faults.txt', limit=2)
faults.add('a.jpg', 'is empty')
print(faults.read())
"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{'a.jpg': 'is empty'}"
    assert len(list(tmp_path.glob('shapes/*/*/*.jpg'))) == 2
