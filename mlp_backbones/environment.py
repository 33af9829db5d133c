"""What is installed, what is broken, and the command that mends it.

Two sets of OpenMMLab packages share the same import names: the maintained ``onedl-*`` forks and upstream's. Whatever
differs between the two stacks is in ``HOSTS`` and ``STACKS``; ``tools/setup_env.sh`` reads it from here. Nothing
imports the packages before it is asked to.
"""

import importlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable
from importlib import metadata
from typing import NamedTuple

# Import name -> the distributions that provide it: (onedl, openmmlab). setup.cfg's extras pin the versions.
HOSTS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}


class Stack(NamedTuple):
    """What goes together with the hosts of one set; setup.cfg's extra of the same name pins the hosts themselves."""

    pythons: tuple[str, ...]
    torch: tuple[str, ...]  # is there before mmcv is compiled
    build: tuple[str, ...]  # compiles it


STACKS = {
    'onedl': Stack(
        pythons=('3.10', '3.11', '3.12'),
        torch=('torch==2.10.0', 'torchvision==0.25.0'),
        build=('setuptools>=77,<81', 'wheel', 'ninja', 'psutil'),
    ),
    'openmmlab': Stack(
        pythons=('3.10', '3.11'),
        torch=('torch==2.1.2', 'torchvision==0.16.2', 'numpy<2'),
        build=('setuptools>=64,<70', 'wheel', 'ninja', 'psutil'),
    ),
}
EXPORT = 'pip install onnx onnxscript onnxruntime'


class MissingDependency(ImportError):
    """A package that is needed is absent or broken; the message ends with the command that mends it."""


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(name: str) -> dict[str, str]:
    """Distribution -> version, for those installed of the distributions that provide ``name``."""
    return {d: v for d in HOSTS[name] if (v := _version(d))}


def stacks() -> tuple[str, ...]:
    """The stacks of which something is installed: one where all is well."""
    return tuple(stack for i, stack in enumerate(STACKS) if any(_version(d[i]) for d in HOSTS.values()))


def _stack() -> str:
    """The stack that commands are about: what is installed, or the default."""
    return next(iter(stacks()), 'onedl')


def _pip(*requirements: str, options: str = '') -> str:
    return ' '.join(['pip install', *options.split(), *(shlex.quote(r) for r in requirements)])


def install_command() -> str:
    """The shell command that installs the stack that is there in part, or the default one: torch first, then the
    rest, because without torch mmcv would come without its operators."""
    stack = _stack()
    first = _pip(*STACKS[stack].torch, *STACKS[stack].build)
    return f'{first} && CFLAGS=-g0 {_pip(f"mlpbackbones[{stack}]", options="--no-build-isolation")}'


def problem_with(name: str) -> str | None:
    """Why the import package ``name`` (a key of ``HOSTS``) cannot be used, with the command that mends it.

    Returns:
        str | None: The problem in words, or None where there is none.
    """
    found = installed(name)
    if len(found) == 2:
        onedl, upstream = HOSTS[name]
        return (
            f'both {onedl} and {upstream} are installed and overwrite each other under the name {name!r}. Mend it with:'
            f'\n  pip uninstall -y {onedl} {upstream} && {install_command()}'
        )
    try:
        importlib.import_module(name)
        if name in ('mmdet', 'mmseg') and (problem := ops_problem()):
            return problem
        for part in ('models', 'datasets') if name in ('mmdet', 'mmseg', 'mmpretrain') else ():
            importlib.import_module(f'{name}.{part}')  # where their own dependencies are imported
    except ModuleNotFoundError as error:
        if error.name == name:
            return f'{name} is not installed. Install it with:\n  {install_command()}'
        return (
            f'{name} is installed, but it needs {error.name!r}, which is not. Install it with:\n  {install_command()}'
        )
    except Exception as error:  # the hosts assert their dependencies' versions when imported
        versions = ', '.join(f'{d} {v}' for n in HOSTS for d, v in installed(n).items())
        return (
            f'{name} is installed but does not import ({type(error).__name__}: {error}). Installed: {versions}. '
            f'The versions that go together are pinned; install them with:\n  {install_command()}'
        )
    return None


def ops_problem() -> str | None:
    """Why mmcv's compiled operators (NMS, RoIAlign, ...) cannot be used, or None where they work."""
    if problem := problem_with('mmcv'):
        return problem
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        if not installed('mmcv'):
            return (
                f'mmcv has no compiled operators ({error}): it is mmcv-lite. Replace it with:\n'
                f'  pip uninstall -y mmcv-lite onedl-mmcv-lite && {install_command()}'
            )
        return (
            f'mmcv {next(iter(installed("mmcv").values()))} has no working compiled operators ({error}): it was built '
            f'without torch, or against another one. Build it again (minutes) with:\n  {_rebuild_ops()}'
        )
    return None


def _rebuild_ops(settings: str = '') -> str:
    ((distribution, version),) = installed('mmcv').items()
    options = '--no-build-isolation --force-reinstall --no-deps --no-cache-dir'
    return f'{_pip(*STACKS[_stack()].build)} && {settings}{_pip(f"{distribution}=={version}", options=options)}'


def require(*names: str) -> None:
    """Make sure that import packages can be used; 'mmdet' and 'mmseg' include mmcv's compiled operators.

    Args:
        *names (str): Keys of ``HOSTS``.

    Raises:
        MissingDependency: One cannot be used; the message names the command that mends it.
    """
    for name in names:
        if problem := problem_with(name):
            raise MissingDependency(problem)


# What follows looks at a whole environment. Each look says what there is, or raises: MissingDependency with the
# command that mends it, or whatever else the thing that was tried raises.


def _look_at_python() -> str:
    version = '.'.join(map(str, sys.version_info[:3]))
    known = STACKS[_stack()].pythons
    return version + ('' if version.rsplit('.', 1)[0] in known else f' (not tried with {_stack()}: {", ".join(known)})')


def _look_at_stack() -> str:
    there = [f'{d} {v}' for name in HOSTS for d, v in installed(name).items()]
    if len(stacks()) > 1:
        raise MissingDependency(
            f'packages of both stacks are installed: {", ".join(there)}. They overwrite each other; begin anew with:\n'
            f'  pip uninstall -y {" ".join(d.split()[0] for d in there)} && {install_command()}'
        )
    if not there:
        raise MissingDependency(f'no OpenMMLab is installed. Install it with:\n  {install_command()}')
    return stacks()[0]


def _look_at_torch() -> str:
    import numpy
    import torch

    try:
        torch.from_numpy(numpy.zeros(1))
    except RuntimeError as error:
        raise MissingDependency(
            f'torch {torch.__version__} does not work with numpy {numpy.__version__} ({error}). Mend it with:\n'
            f'  {_pip("numpy<2", "opencv-python<4.12")}'
        ) from error
    return f'{torch.__version__}, numpy {numpy.__version__}'


def _look_at_torchvision() -> str:
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
    return torchvision.__version__


def _look_at_host(name: str) -> Callable[[], str]:
    def look() -> str:
        require(name)
        return ', '.join(f'{d} {v}' for d, v in installed(name).items()) or 'from a distribution of another name'

    return look


def _look_at_ops() -> str:
    if problem := ops_problem():
        raise MissingDependency(problem)
    import torch
    from mmcv.ops import nms

    works = []
    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        try:
            nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=device), torch.tensor([1.0], device=device), 0.5)
        except Exception as error:
            settings = f'FORCE_CUDA={int(device == "cuda")} CFLAGS=-g0 '
            need = f' with nvcc of CUDA {torch.version.cuda} on the path' if device == 'cuda' else ''
            raise MissingDependency(
                f"mmcv's nms does not work on {device} ({type(error).__name__}: {error}). Build mmcv again{need} "
                f'(minutes):\n  {_rebuild_ops(settings)}'
            ) from error
        works.append(device)
    return f'work on {" and ".join(works)}'


def _look_at_cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
            return 'GPUs are hidden by CUDA_VISIBLE_DEVICES: everything runs on the CPU'
        if os.path.exists('/dev/nvidia0'):
            raise MissingDependency(
                f'there is a GPU, but torch {torch.__version__} cannot use it: its driver may be too old for CUDA '
                f'{torch.version.cuda}. See what the driver says, or do without the GPU, with:\n'
                f'  nvidia-smi\n  export CUDA_VISIBLE_DEVICES='
            )
        return 'no GPU: everything runs on the CPU'
    torch.ones(8, 8, device='cuda').mm(torch.ones(8, 8, device='cuda')).sum().item()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f'{torch.version.cuda}, {len(names)} x {names[0]}'


def _reduce(group: str, device: str) -> None:
    import torch
    import torch.distributed as dist

    value = torch.ones(1, device=device)
    getattr(dist, group)(dist.HashStore(), 0, 1).allreduce([value]).wait()
    assert value.item() == 1


def _look_at_gloo() -> str:
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise MissingDependency(f'this torch is built without gloo. Install another with:\n  {install_command()}')
    try:
        _reduce('ProcessGroupGloo', 'cpu')
    except RuntimeError as error:
        raise MissingDependency(
            f"gloo finds no network ({error}): this machine's own name has no address. On one machine this mends it:\n"
            f'  export GLOO_SOCKET_IFNAME=lo'
        ) from error
    return 'works (several processes on CPUs)'


def _look_at_nccl() -> str:
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_nccl_available():
        if torch.cuda.is_available():
            raise MissingDependency(f'this torch is built without NCCL. Install another with:\n  {install_command()}')
        return 'not in this build of torch, nor needed without a GPU'
    if not torch.cuda.is_available():
        return 'not tried: it needs a GPU'
    _reduce('ProcessGroupNCCL', 'cuda')
    return '.'.join(map(str, torch.cuda.nccl.version())) + ' works (several processes on GPUs)'


def _look_at_onnxruntime() -> str:
    missing = [n for n in ('onnx', 'onnxscript', 'onnxruntime') if not importlib.util.find_spec(n)]
    if missing:
        return f'{", ".join(missing)} not installed; only export to ONNX needs them: {EXPORT}'
    import numpy
    import onnx
    import onnxruntime

    value = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1]) for n in 'xy']
    graph = onnx.helper.make_graph([onnx.helper.make_node('Neg', ['x'], ['y'])], 'graph', value[:1], value[1:])
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid('', 17)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    assert session.run(None, {'x': numpy.ones(1, 'float32')})[0] == -1
    return f'{onnxruntime.__version__} works'


LOOKS = {
    'Python': _look_at_python,
    'stack': _look_at_stack,
    'torch': _look_at_torch,
    'torchvision': _look_at_torchvision,
    **{name: _look_at_host(name) for name in HOSTS},
    'mmcv.ops': _look_at_ops,
    'CUDA': _look_at_cuda,
    'gloo': _look_at_gloo,
    'NCCL': _look_at_nccl,
    'onnxruntime': _look_at_onnxruntime,
}


def examine() -> dict[str, tuple[bool, str]]:
    """Try everything: what was tried -> whether it is well, and what there is, or the problem and what mends it."""
    found = {}
    for name, look in LOOKS.items():
        try:
            found[name] = (True, look())
        except MissingDependency as error:
            found[name] = (False, str(error))
        except Exception as error:
            command = EXPORT if name == 'onnxruntime' else install_command()
            found[name] = (False, f'{type(error).__name__}: {error}. Install it anew with:\n  {command}')
    return found


def check_environment() -> dict[str, str | None]:
    """Try everything that ``examine`` does: Python, torch, every host package, mmcv's operators, CUDA, gloo, NCCL.

    Returns:
        dict[str, str | None]: What was tried, such as 'mmdet' or 'mmcv.ops' -> the problem in words with the command
        that mends it, or None where there is none.
    """
    return {name: None if well else said for name, (well, said) in examine().items()}
