"""What is installed, what is broken, and the command that mends it.

Two sets of OpenMMLab packages share the same import names: the maintained ``onedl-*`` forks and upstream's. Nothing
here imports them before it is asked to.
"""

import importlib
from importlib import metadata

# Import name -> the distributions that provide it: (onedl, openmmlab). setup.cfg's extras pin the versions.
HOSTS = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}
INSTALL = "pip install torch torchvision && pip install --no-build-isolation 'mlpbackbones[onedl]'"
REBUILD_OPS = (
    "pip install ninja psutil wheel 'setuptools>=77,<81' && "
    'pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir {distribution}=={version}'
)


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
            f'\n  pip uninstall -y {onedl} {upstream} && {INSTALL}'
        )
    try:
        importlib.import_module(name)
        if name in ('mmdet', 'mmseg') and (problem := ops_problem()):
            return problem
        for part in ('models', 'datasets') if name in ('mmdet', 'mmseg', 'mmpretrain') else ():
            importlib.import_module(f'{name}.{part}')  # where their own dependencies are imported
    except ModuleNotFoundError as error:
        if error.name == name:
            return f'{name} is not installed. Install it with:\n  {INSTALL}'
        return f'{name} is installed, but it needs {error.name!r}, which is not. Install it with:\n  {INSTALL}'
    except Exception as error:  # the hosts assert their dependencies' versions when imported
        versions = ', '.join(f'{d} {v}' for n in HOSTS for d, v in installed(n).items())
        return (
            f'{name} is installed but does not import ({type(error).__name__}: {error}). Installed: {versions}. '
            f'The versions that go together are pinned; install them with:\n  {INSTALL}'
        )
    return None


def ops_problem() -> str | None:
    """Why mmcv's compiled operators (NMS, RoIAlign, ...) cannot be used, or None where they work."""
    if problem := problem_with('mmcv'):
        return problem
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        distribution, version = next(iter(installed('mmcv').items()), ('onedl-mmcv', '2.3.6'))
        return (
            f'mmcv {version} has no working compiled operators ({error}): it was built without torch, or against '
            f'another one. Build it again (minutes) with:\n  '
            + REBUILD_OPS.format(distribution=distribution, version=version)
        )
    return None


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


def check_environment() -> dict[str, str | None]:
    """Every host package, and mmcv's operators under 'mmcv.ops' -> its problem, or None where there is none."""
    return {**{name: problem_with(name) for name in HOSTS}, 'mmcv.ops': ops_problem()}
