"""What is installed, which stack it is, what works, what does not, and the command that fixes it.

The exit status is 0 where all is well, or 1.
"""

import argparse
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    from mlp_backbones.utils import environment
    from mlp_backbones.utils.environment import HOSTS, STACKS, install_command, installed, pip, stacks
    from mlp_backbones.utils.errors import MissingDependency
except ModuleNotFoundError:
    root = Path(__file__).resolve().parents[1]
    sys.exit(
        f'mlp_backbones is not installed in {sys.prefix}. Install it with:\n  {sys.executable} -m pip install -e {root}'
    )

EXPORT = 'pip install onnx onnxscript onnxruntime'

# Each check returns what is there, or raises: MissingDependency with the command that fixes it, or whatever else the
# thing that was tried raises.


def tried(version: str, known: tuple[str, ...]) -> str:
    """A version, and where the tests were not run with it, those with which they were."""
    if '.'.join(version.split('.')[:2]) in known:
        return version
    return f'{version} (not tried with {stacks()[0]}: {", ".join(known)})'


def check_python() -> str:
    return tried('.'.join(map(str, sys.version_info[:3])), STACKS[stacks()[0]].pythons)


def check_stack() -> str:
    there = {d: v for name in HOSTS for d, v in installed(name).items()}
    if not there:
        raise MissingDependency(f'no OpenMMLab is installed. Install it with:\n  {install_command()}')
    if len(stacks()) > 1:
        listed = ', '.join(f'{d} {v}' for d, v in there.items())
        raise MissingDependency(
            f'packages of both stacks are installed: {listed}. They overwrite each other; start anew with:\n'
            f'  pip uninstall -y {" ".join(there)} && {install_command()}'
        )
    return stacks()[0]


def check_torch() -> str:
    import numpy
    import torch

    try:
        torch.from_numpy(numpy.zeros(1))
    except RuntimeError as error:
        raise MissingDependency(
            f'torch {torch.__version__} does not work with numpy {numpy.__version__} ({error}). Fix it with:\n'
            f'  {pip("numpy<2", "opencv-python<4.12")}'
        ) from error
    return f'{tried(torch.__version__, STACKS[stacks()[0]].torches)}, numpy {numpy.__version__}'


def check_torchvision() -> str:
    import torch
    import torchvision

    torchvision.ops.nms(torch.eye(1, 4), torch.ones(1), 0.5)
    return torchvision.__version__


def check_host(name: str) -> str:
    environment.require(name)
    return ', '.join(f'{d} {v}' for d, v in installed(name).items()) or 'from a distribution of another name'


def check_ops() -> str:
    if problem := environment.ops_problem():
        raise MissingDependency(problem)
    import torch
    from mmcv.ops import nms

    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        try:
            nms(torch.eye(1, 4, device=device), torch.ones(1, device=device), 0.5)
        except Exception as error:
            settings = f'FORCE_CUDA={int(device == "cuda")} '
            need = f' with nvcc of CUDA {torch.version.cuda} on the path' if device == 'cuda' else ''
            raise MissingDependency(
                f"mmcv's nms does not work on {device} ({type(error).__name__}: {error}). Build mmcv again{need} "
                f'(minutes):\n  {environment.rebuild_command(settings)}'
            ) from error
    return f'work on {" and ".join(devices)}'


def check_cuda() -> str:
    import torch

    if torch.cuda.is_available():
        torch.ones(8, 8, device='cuda').mm(torch.ones(8, 8, device='cuda')).sum().item()
        return f'{torch.version.cuda}, {torch.cuda.device_count()} x {torch.cuda.get_device_name()}'
    if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        return 'GPUs are hidden by CUDA_VISIBLE_DEVICES: everything runs on the CPU'
    if os.path.exists('/dev/nvidia0'):
        raise MissingDependency(
            f'there is a GPU, but torch {torch.__version__} cannot use it: its driver may be too old for CUDA '
            f'{torch.version.cuda}. See what the driver says, or do without the GPU, with:\n'
            f'  nvidia-smi\n  export CUDA_VISIBLE_DEVICES='
        )
    return 'no GPU: everything runs on the CPU'


def check_collectives(name: str, device: str) -> str:
    import torch
    import torch.distributed as dist

    if device == 'cuda' and not torch.cuda.is_available():
        return 'not tried: it needs a GPU'
    group = getattr(dist, f'ProcessGroup{name}', None)
    if group is None:
        raise MissingDependency(f'this torch is built without {name}. Install another with:\n  {install_command()}')
    try:
        group(dist.HashStore(), 0, 1).allreduce([torch.ones(1, device=device)]).wait()
    except RuntimeError as error:
        if name == 'NCCL':
            raise
        raise MissingDependency(
            f"gloo finds no network ({error}): this machine's own name has no address. On one machine this fixes it:\n"
            f'  export GLOO_SOCKET_IFNAME=lo'
        ) from error
    return f'works (several processes on {"GPUs" if device == "cuda" else "CPUs"})'


def check_onnxruntime() -> str:
    names = ('onnx', 'onnxscript', 'onnxruntime')
    if missing := [name for name in names if not importlib.util.find_spec(name)]:
        return f'{", ".join(missing)} not installed; only export to ONNX needs them: {EXPORT}'
    return ', '.join(f'{name} {importlib.import_module(name).__version__}' for name in names)


CHECKS = {
    'Python': check_python,
    'stack': check_stack,
    'torch': check_torch,
    'torchvision': check_torchvision,
    **{name: functools.partial(check_host, name) for name in HOSTS},
    'mmcv.ops': check_ops,
    'CUDA': check_cuda,
    'gloo': functools.partial(check_collectives, 'Gloo', 'cpu'),
    'NCCL': functools.partial(check_collectives, 'NCCL', 'cuda'),
    'onnxruntime': check_onnxruntime,
}


def examine(name: str) -> tuple[bool, str]:
    """Whether one of ``CHECKS`` passes, and what is there, or the problem and what fixes it."""
    try:
        return True, CHECKS[name]()
    except MissingDependency as error:
        return False, str(error)
    except Exception as error:
        command = EXPORT if name == 'onnxruntime' else install_command()
        return False, f'{type(error).__name__}: {error}. Install it anew with:\n  {command}'


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what the hosts print when they are imported, and gloo from C++."""
    kept = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    with open(os.devnull, 'w') as nowhere:
        for number in (1, 2):
            os.dup2(nowhere.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with quiet():
        found = {name: examine(name) for name in CHECKS}
    print(f'mlp_backbones in {sys.prefix}\n')
    for name, (passed, message) in found.items():
        print(f'  {"ok" if passed else "!!"}  {name:<12} {message if passed else message.splitlines()[0][:90]}')
    problems = {name: message for name, (passed, message) in found.items() if not passed}
    if not problems:
        print('\nAll is well.')
        return 0
    # One cause often has several effects: each message is printed once.
    for message in dict.fromkeys(problems.values()):
        names = ', '.join(name for name, other in problems.items() if other == message)
        print(f'\n{names}: {message}')
    return 1


if __name__ == '__main__':
    sys.exit(main())
