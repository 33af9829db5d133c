"""The packages that this one works with, and the command that installs one that is absent or broken.

Two sets of OpenMMLab packages share the same import names: the maintained ``onedl-*`` forks and upstream's. Whatever
differs between the two stacks is in ``HOSTS`` and ``STACKS``; ``tools/setup_env.sh`` reads it from here with a Python
that has no packages yet, and ``tools/check_env.py`` tries out the whole environment.
"""

import importlib
import shlex
from importlib import metadata
from typing import NamedTuple

from .errors import MissingDependency

# Import name -> the distributions that provide it: (onedl, openmmlab). setup.cfg's extras pin the versions.
HOSTS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}


class Stack(NamedTuple):
    """What goes together with the frameworks of one set; setup.cfg's extra of the same name pins these themselves."""

    pythons: tuple[str, ...]
    torches: tuple[str, ...]  # with which the fast tests passed, see README.md
    torch: tuple[str, ...]  # installed before mmcv is compiled
    build: tuple[str, ...]  # compiles it


STACKS = {
    'onedl': Stack(
        pythons=('3.10', '3.11', '3.12', '3.13'),
        torches=('2.8', '2.10', '2.12', '2.14'),
        torch=('torch==2.10.0', 'torchvision==0.25.0'),
        build=('setuptools>=77,<81', 'wheel', 'ninja', 'psutil'),
    ),
    'openmmlab': Stack(
        pythons=('3.10', '3.11'),
        torches=('2.1',),
        torch=('torch==2.1.2', 'torchvision==0.16.2', 'numpy<2'),
        build=('setuptools>=64,<70', 'wheel', 'ninja', 'psutil'),
    ),
}

CFLAGS = '-O2 -g0'  # for mmcv: what is set replaces Python's own flags, with their -O3


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def installed(name: str) -> dict[str, str]:
    """Distribution -> version, for those installed of the distributions that provide ``name``."""
    return {d: v for d in HOSTS[name] if (v := _version(d))}


def stacks() -> tuple[str, ...]:
    """The stacks of which something is installed; commands are about the first one, or the default."""
    return tuple(stack for i, stack in enumerate(STACKS) if any(_version(d[i]) for d in HOSTS.values())) or ('onedl',)


def pip(*requirements: str, options: str = '') -> str:
    """The shell command that installs these."""
    return ' '.join(['pip install', *options.split(), *(shlex.quote(r) for r in requirements)])


def install_command() -> str:
    """The shell command that installs the stack that is partly installed, or the default one.

    Torch comes first: without it mmcv would be built without its operators.
    """
    stack = stacks()[0]
    first = pip(*STACKS[stack].torch, *STACKS[stack].build)
    return f'{first} && CFLAGS={shlex.quote(CFLAGS)} {pip(f"mlpbackbones[{stack}]", options="--no-build-isolation")}'


def rebuild_command(settings: str = '') -> str:
    """The shell command that compiles the installed mmcv again, with environment variables such as ``FORCE_CUDA=1``."""
    distribution, version = next(iter(installed('mmcv').items()))
    options = '--no-build-isolation --force-reinstall --no-deps --no-cache-dir'
    build = pip(*STACKS[stacks()[0]].build)
    return f'{build} && {settings}CFLAGS={shlex.quote(CFLAGS)} {pip(f"{distribution}=={version}", options=options)}'


def problem_with(name: str) -> str | None:
    """Why the import package ``name`` (a key of ``HOSTS``) cannot be used, with the command that fixes it, or None."""
    try:
        importlib.import_module(name)
        if name in ('mmdet', 'mmseg') and (problem := ops_problem()):
            return problem
        for part in ('models', 'datasets') if name in ('mmdet', 'mmseg', 'mmpretrain') else ():
            importlib.import_module(f'{name}.{part}')  # where their own dependencies are imported
    except ModuleNotFoundError as error:
        if error.name == name:
            return f'{name} is not installed. Install it with:\n  {install_command()}'
        return f'{name} is installed but needs {error.name!r}, which is not. Install it with:\n  {install_command()}'
    except Exception as error:  # the frameworks assert their dependencies' versions when imported
        versions = ', '.join(f'{d} {v}' for n in HOSTS for d, v in installed(n).items())
        return (
            f'{name} is installed but does not import ({type(error).__name__}: {error}). Installed: {versions}. '
            f'The versions that go together are pinned; install them with:\n  {install_command()}'
        )
    return None


def ops_problem() -> str | None:
    """Why mmcv's compiled operators (NMS, RoIAlign, ...) cannot be used, with the command that fixes it, or None."""
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
            f'without torch, or for another one. Build it again (minutes) with:\n  {rebuild_command()}'
        )
    return None


def require(*names: str) -> None:
    """Make sure that import packages can be used; 'mmdet' and 'mmseg' include mmcv's compiled operators.

    Args:
        *names (str): Keys of ``HOSTS``.

    Raises:
        MissingDependency: One cannot be used; the message names the command that fixes it.
    """
    for name in names:
        if problem := problem_with(name):
            raise MissingDependency(problem)
