import configparser
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
import torch
from helpers import ROOT
from helpers.processes import gone

import mlp_backbones
from mlp_backbones.utils import environment

# A fresh interpreter in which some imports fail as on a machine where they are absent or broken.
PYTEST = '<-m><pytest><-n><logical><--maxprocesses><4><--dist><worksteal>'
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


def only(*distributions):
    """In place of ``metadata.version``: nothing but these is installed."""

    def version(name):
        if name not in distributions:
            raise metadata.PackageNotFoundError(name)
        return '1.0'

    return version


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


def test_readme_and_setup_agree_on_what_the_package_needs():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    required = re.findall(r'^[\w-]+', config['options']['install_requires'].strip(), re.MULTILINE)
    readme = (ROOT / 'README.md').read_text()
    named = re.split(r', | and\s', re.search(r'The package itself needs (.*?);', readme, re.DOTALL)[1])
    assert named == [*required, 'mmengine']


@pytest.mark.slow
def test_backbones_need_mmengine_only():
    done = run(
        ['mmcv', 'mmdet', 'mmseg', 'mmpretrain'],
        """
import torch
from mlp_backbones import GMLP, ConvMLP, RepMLP, ResMLP
with torch.device('meta'):
    print([len(cls(arch)(torch.empty(1, 3, 224, 224))) for cls, arch in
           ((ConvMLP, 'small'), (ResMLP, '12'), (GMLP, 'ti16'), (RepMLP, 't224'))])
""",
    )
    assert done.stdout.strip() == '[4, 1, 1, 4]', done.stderr


@pytest.mark.slow
def test_import_with_a_broken_mmengine():
    done = run(
        ['mmengine.registry'],
        'import mlp_backbones\nfrom mlp_backbones import MODELS',
        error="ImportError('libGL.so.1: cannot open shared object file')",
    )
    assert 'mmengine is installed but does not import' in done.stderr and 'libGL' in done.stderr


def test_operators_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    with pytest.raises(environment.MissingDependency, match='(?s)no working compiled operators.*--no-build-isolation'):
        environment.require('mmdet')
    # Without mmcv's own distribution it is mmcv-lite, which has none.
    monkeypatch.setattr(environment.metadata, 'version', only('mmengine'))
    problem = environment.ops_problem()
    assert 'it is mmcv-lite' in problem and 'pip uninstall -y mmcv-lite' in problem and 'torch==2.1.2' in problem


@pytest.mark.slow
def test_mismatched_versions():
    done = run(
        ['mmdet'],
        "from mlp_backbones.utils.environment import require; require('mmdet')",
        error="AssertionError('MMCV==9.9 is used but incompatible')",
    )
    assert 'MMCV==9.9 is used but incompatible' in done.stderr and 'pip install' in done.stderr


@pytest.mark.slow
def test_host_without_its_own_dependency():
    done = run(['pycocotools'], "from mlp_backbones.utils.environment import require; require('mmdet')")
    assert "mmdet is installed but needs 'pycocotools'" in done.stderr


def test_every_host_is_pinned_in_the_extra_of_its_stack():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    for column, stack in enumerate(environment.STACKS):
        pins = dict(line.split('==') for line in config['options.extras_require'][stack].split() if '==' in line)
        assert {names[column] for names in environment.HOSTS.values()} <= set(pins)


@pytest.mark.parametrize(
    'there, words, stack',
    [
        ('mmengine', ["torch==2.1.2 torchvision==0.16.2 'numpy<2' 'setuptools>=64,<70'"], 'openmmlab'),
        ('onedl-mmcv', ["torch==2.10.0 torchvision==0.25.0 'setuptools>=77,<81'"], 'onedl'),
        ('', ['torch==2.10.0'], 'onedl'),
    ],
)
def test_commands_are_about_the_stack_that_is_there(monkeypatch, there, words, stack):
    monkeypatch.setattr(environment.metadata, 'version', only(there))
    command = environment.install_command()
    assert all(w in command for w in words)
    assert command.endswith(f"&& CFLAGS='-O2 -g0' pip install --no-build-isolation 'mlpbackbones[{stack}]'")


@pytest.fixture(scope='module')
def check_env():
    """``tools/check_env.py`` as a module."""
    spec = importlib.util.spec_from_file_location('check_env', ROOT / 'tools/check_env.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestChecks:
    """What the checks report where something is wrong, each brought about."""

    @pytest.fixture
    def problem(self, check_env):
        def problem(name):
            passed, message = check_env.examine(name)
            assert not passed and '\n  ' in message  # the command
            return message

        return problem

    def test_packages_of_both_stacks(self, monkeypatch, problem):
        monkeypatch.setattr(environment.metadata, 'version', only('onedl-mmengine', 'mmcv'))
        said = problem('stack')
        assert 'both stacks are installed: onedl-mmengine 1.0, mmcv 1.0' in said
        assert 'pip uninstall -y onedl-mmengine mmcv && pip install torch==2.10.0' in said

    def test_no_stack(self, monkeypatch, problem):
        monkeypatch.setattr(environment.metadata, 'version', only())
        assert 'no OpenMMLab is installed' in problem('stack')

    def test_both_builds_of_mmcv(self, monkeypatch):
        monkeypatch.setattr(environment.metadata, 'version', only('onedl-mmcv', 'mmcv'))
        monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
        assert 'mmcv 1.0 has no working compiled operators' in environment.ops_problem()

    def test_pythons(self, monkeypatch, check_env):
        monkeypatch.setattr(sys, 'version_info', (3, 14, 0))
        passed, said = check_env.examine('Python')
        assert passed and said.startswith('3.14.0 (not tried with ')

    @pytest.mark.parametrize('version, words', [('2.10.1+cu128', ''), ('2.9.1', ' (not tried with onedl: 2.8, 2.10, ')])
    def test_torches(self, monkeypatch, check_env, version, words):
        monkeypatch.setattr(environment.metadata, 'version', only('onedl-mmcv'))
        monkeypatch.setattr(torch, '__version__', version)
        passed, said = check_env.examine('torch')
        assert passed and said.startswith(version + (words or ', numpy '))

    def test_torch_that_does_not_know_this_numpy(self, monkeypatch, problem):
        def from_numpy(array):
            raise RuntimeError('Numpy is not available')

        monkeypatch.setattr(torch, 'from_numpy', from_numpy)
        said = problem('torch')
        assert 'Numpy is not available' in said and said.endswith("pip install 'numpy<2' 'opencv-python<4.12'")

    def test_torchvision_of_another_torch(self, monkeypatch, problem):
        def nms(*args):
            raise RuntimeError('operator torchvision::nms does not exist')

        monkeypatch.setattr('torchvision.ops.nms', nms)
        assert 'torchvision::nms does not exist. Install it anew with:' in problem('torchvision')

    def test_gpu_that_torch_cannot_use(self, monkeypatch, check_env, problem):
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        monkeypatch.setattr(os.path, 'exists', lambda path: False)
        assert check_env.examine('CUDA') == (True, 'no GPU: everything runs on the CPU')
        monkeypatch.setattr(os.path, 'exists', lambda path: path == '/dev/nvidia0')
        assert 'there is a GPU, but torch' in problem('CUDA')
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
        assert check_env.examine('CUDA') == (
            True,
            'GPUs are hidden by CUDA_VISIBLE_DEVICES: everything runs on the CPU',
        )

    def test_operators_without_cuda(self, monkeypatch, problem):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        said = problem('mmcv.ops')
        assert "mmcv's nms does not work on cuda" in said and "FORCE_CUDA=1 CFLAGS='-O2 -g0' pip install" in said

    def test_gloo_without_a_network(self, monkeypatch, check_env, problem):
        assert check_env.examine('gloo') == (True, 'works (several processes on CPUs)')

        def fail(*args):
            raise RuntimeError('Unable to resolve hostname to a (local) address')

        monkeypatch.setattr(torch.distributed, 'ProcessGroupGloo', fail)
        said = problem('gloo')
        assert 'Unable to resolve hostname' in said and said.endswith('export GLOO_SOCKET_IFNAME=lo')

    def test_onnxruntime(self, monkeypatch, check_env):
        monkeypatch.setitem(sys.modules, 'onnxruntime', None)
        passed, said = check_env.examine('onnxruntime')
        assert (
            passed and said.startswith('onnxruntime not installed; only export to ONNX needs') and 'pip install' in said
        )


def test_check_env(run_script, check_env, monkeypatch):
    code, said = run_script('check_env.py')
    assert code == 0 and 'All is well.' in said and all(f'ok  {name} ' in said for name in check_env.CHECKS)
    assert len(said.splitlines()) < 24 and max(map(len, said.splitlines())) <= 120  # one screen

    def problem(name):
        return f'{name} is broken. Fix it with:\n  the command' if name == 'mmcv' else None

    monkeypatch.setattr(environment, 'problem_with', problem)
    code, said = run_script('check_env.py')
    assert code == 1 and '!!  mmcv  ' in said and '!!  mmcv.ops ' in said and 'ok  mmdet ' in said
    assert said.count('  the command') == 1 and '\nmmcv, mmcv.ops: mmcv is broken. Fix it with:\n  the command' in said


def test_check_env_without_the_package(tmp_path):
    done = subprocess.run(
        [sys.executable, '-S', ROOT / 'tools/check_env.py'],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != 'PYTHONPATH'},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and f'-m pip install -e {ROOT}' in done.stderr and 'Traceback' not in done.stderr


class TestSetUp:
    """The scripts, in front of an environment that is only a Python which says how it was called."""

    @staticmethod
    def call(venv, script, *args, **env):
        env = {**os.environ, 'TORCH': '', 'VENV': str(venv), **env}
        return subprocess.run([ROOT / 'tools' / script, *args], cwd='/', env=env, capture_output=True, text=True)

    @pytest.fixture
    def venv(self, tmp_path):
        def make(stamp):
            (tmp_path / 'bin').mkdir()
            (tmp_path / 'bin/python').write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
            (tmp_path / 'bin/python').chmod(0o755)
            names = ['setup.cfg', 'tools/setup_env.sh', 'mlp_backbones/utils/environment.py']
            sources = b''.join((ROOT / n).read_bytes() for n in names)
            sums = subprocess.run(['cksum'], input=sources, capture_output=True, check=True).stdout.decode().strip()
            (tmp_path / 'setup.stamp').write_text(stamp.replace('SUMS', sums))
            return tmp_path

        return make

    @pytest.mark.parametrize('stack', environment.STACKS)
    def test_the_tests_run_on_the_stack(self, venv, stack):
        done = self.call(venv(f'{stack} SUMS'), 'run_tests.sh', '--stack', stack, '-m', 'not slow', '-x')
        assert done.returncode == 0 and done.stdout == f'{PYTEST}<-m><not slow><-x>'

    def test_the_default_stack(self, venv):
        done = self.call(venv('onedl SUMS'), 'run_tests.sh', '-m', 'not slow')
        assert done.stdout == f'{PYTEST}<-m><not slow>'

    @pytest.mark.parametrize(
        'stamp, stack, words',
        [
            ('onedl SUMS', 'openmmlab', 'holds the stack onedl, not openmmlab'),
            ('openmmlab', 'onedl', 'holds the stack openmmlab, not onedl'),  # half installed
            ('4044 8111', 'openmmlab', 'holds the stack onedl, not openmmlab'),  # of a version that knew one stack
        ],
    )
    def test_stacks_are_not_mixed(self, venv, stamp, stack, words):
        there = venv(stamp)
        before = (there / 'setup.stamp').read_text()
        for script in ('setup_env.sh', 'run_tests.sh', 'quickstart.sh'):
            done = self.call(there, script, f'--stack={stack}')
            assert done.returncode == 1 and words in done.stderr and str(there) in done.stderr and not done.stdout
        assert (there / 'setup.stamp').read_text() == before and not (there / 'setup.log').exists()

    @pytest.mark.parametrize(
        'script, args, words',
        [
            ('setup_env.sh', ['--stack', 'mmlab'], "--stack must be onedl or openmmlab, got 'mmlab'"),
            ('run_tests.sh', ['--stack'], "--stack must be onedl or openmmlab, got ''"),
            ('setup_env.sh', ['openmmlab'], 'unknown arguments: openmmlab'),
            ('quickstart.sh', ['-x'], 'usage: tools/quickstart.sh [--stack onedl|openmmlab]'),
        ],
    )
    def test_wrong_arguments(self, tmp_path, script, args, words):
        done = self.call(tmp_path / 'none', script, *args)
        assert done.returncode and words in done.stderr and not (tmp_path / 'none').exists()

    def test_pythons_that_do_not_fit(self, tmp_path):
        done = self.call(tmp_path / 'none', 'setup_env.sh', '--stack', 'openmmlab', PYTHON='/bin/false')
        assert done.returncode == 1 and '/bin/false is not a Python 3.10 or 3.11' in done.stderr
        new = tmp_path / 'python3'
        new.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "import sys; sys.version_info = (3, 12, 1); $3"\n')
        new.chmod(0o755)
        done = self.call(tmp_path / 'none', 'setup_env.sh', '--stack', 'openmmlab', PYTHON=str(new))
        assert f'{new} is not a Python 3.10 or 3.11, which the stack openmmlab needs' in done.stderr
        assert not (tmp_path / 'none').exists()

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
    def test_nothing_goes_on_installing_when_it_is_stopped(self, venv, number):
        there = venv('onedl')
        pip = f'sleep 60 & echo $! >{there}/started; wait'
        stub = there / 'bin/python'
        stub.write_text(f'#!/bin/sh\ncase "$*" in *-m\\ pip*) {pip};; *) exec {sys.executable} "$@";; esac\n')
        env = {**os.environ, 'TORCH': '', 'VENV': str(there)}
        run = subprocess.Popen(
            [ROOT / 'tools/setup_env.sh'],
            env=env,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # these tests may run in the background
        )
        while not (there / 'started').exists() or not (there / 'started').read_text():
            time.sleep(0.05)
        group = os.getpgid(int((there / 'started').read_text()))
        run.send_signal(number)
        assert run.wait(30) == 130
        gone(group)

    def test_another_torch(self, tmp_path):
        for wanted, args, words in (
            ('newest', [], "TORCH must be a version such as 2.12, got 'newest'"),
            ('2.12', ['--locked'], 'TORCH=2.12 cannot be with --locked, which has its own'),
        ):
            done = self.call(tmp_path / 'none', 'setup_env.sh', *args, TORCH=wanted)
            assert done.returncode == 1 and words in done.stderr and not (tmp_path / 'none').exists()


def test_public_names():
    assert set(mlp_backbones.__all__) <= set(dir(mlp_backbones))
    for name in mlp_backbones.__all__:
        assert getattr(mlp_backbones, name) is not None
    with pytest.raises(AttributeError, match='ResNet.*ConvMLP'):
        mlp_backbones.ResNet  # noqa: B018
