# ruff: noqa: E402
import os

# Before anything asks for a GPU: most tests compare runs to the last bit, on a CPU. TEST_CUDA=1 is for tests/cuda.
if not os.environ.get('TEST_CUDA'):
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import contextlib
import ctypes
import gc
import logging
import runpy
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.utils import ManagerMixin
from torch.utils.data._utils import signal_handling

from mlp_backbones.datasets import make_shapes

TOOLS = Path(__file__).parents[1] / 'tools'

# No handler of SIGCHLD for the workers of loaders in the processes of the tests: these ended with a segmentation fault,
# at an instruction that reads no memory, when a child process ended while an engine computed.
signal_handling._SIGCHLD_handler_set = True


def managed(cls=ManagerMixin):
    """The classes of which mmengine keeps instances by name: loggers, visualizers, scopes and others."""
    return {cls}.union(*map(managed, cls.__subclasses__()))


@pytest.fixture(autouse=True)
def own_instances():
    """A runner makes instances for the whole process, some with files of its work folder: here for one test only."""
    before = {cls: cls._instance_dict.copy() for cls in managed()}
    yield
    for cls in managed():
        cls._instance_dict = before.get(cls, OrderedDict())


@pytest.fixture(autouse=True, scope='module')
def return_memory():
    """Return what a module freed to the system: with several processes, that of training and tracing adds up."""
    yield
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # of glibc
        ctypes.CDLL('libc.so.6').malloc_trim(0)


@pytest.fixture
def run_script(capsys, monkeypatch):
    """A function that runs a script of ``tools/`` in this process and returns its exit status and what it printed."""

    def run(name, *args):
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        # mmengine's logger may hold the output stream of an earlier test, which is closed.
        monkeypatch.setattr(logging, 'raiseExceptions', False)
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(TOOLS / name), run_name='__main__')
        return done.value.code or 0, ''.join(capsys.readouterr())

    return run


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """A folder with a small set of each task: 6 training and 4 validation images."""
    root = tmp_path_factory.mktemp('shapes')
    for task, name in (('detection', 'coco'), ('segmentation', 'ade'), ('classification', 'imagenet')):
        make_shapes(root / name, task, num_train=6, num_val=5, verbose=False)
    return root
