"""What the command-line tools share: messages instead of tracebacks, files to write, and ``--cfg-options``."""

import argparse
import contextlib
import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from .environment import require
from .errors import Error, UserError


def run_tool(main: Callable[[], None]) -> int:
    """Call ``main``; what the user can fix is printed as one message instead of a traceback.

    That is this package's own exceptions, and those of mmengine's registry that name a class that does not exist, or an
    argument that it does not take. All others keep their traceback, bugs of this package too.

    Args:
        main (Callable): A tool, which reads its arguments from ``sys.argv``.

    Returns:
        int: The exit status: 0, or 1 after an error.
    """
    try:
        main()
    except (Error, KeyError, TypeError) as error:
        last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        if not isinstance(error, Error) and last.parts[-2:] != ('registry', 'build_functions.py'):
            raise
        print(f'\nerror: {error.args[0]}', file=sys.stderr, flush=True)
        traceback.clear_frames(error.__traceback__)  # ends the workers of a dataloader now, rather than at exit
        return 1
    return 0


def say(text: str) -> None:
    """Print a line, in the first of several processes only."""
    if os.environ.get('RANK', '0') == '0':
        print(text, flush=True)


@contextlib.contextmanager
def quiet_log(level: str) -> Iterator[None]:
    """Keep what is below ``level`` out of mmengine's log, within the block."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def config_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every tool that takes a config and changes to it."""
    require('mmengine')
    from mmengine.config import DictAction

    class Options(DictAction):
        def __call__(self, parser, namespace, values, option_string=None):
            if wrong := [value for value in values if '=' not in value]:
                parser.error(f'{option_string} takes KEY=VALUE, got {" ".join(wrong)}')
            super().__call__(parser, namespace, values, option_string)

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file, or a name of the zoo (docs/model_zoo.md)')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Options,
        metavar='KEY=VALUE',
        help='override settings of the config, such as data_root=/data/coco/ or optim_wrapper.optimizer.lr=2e-4',
    )
    return parser


def check_target(path: str | Path, replace: bool = True) -> None:
    """Raise ``UserError`` where a file cannot be written: its folder does not exist, or it is a folder itself.

    Unless ``replace``, also where it exists, or the .bin beside an .xml, which holds the weights of OpenVINO's models.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise UserError(f'the folder {path.parent} does not exist: {path.name} cannot be written')
    if path.is_dir():
        raise UserError(f'{path} is a folder')
    for file in [path, path.with_suffix('.bin')] if path.suffix == '.xml' else [path]:
        if file.exists() and not replace:
            raise UserError(f'{file} already exists; --force replaces it')
    check_writable(path.parent)


def check_writable(folder: str | Path) -> None:
    """Make a folder where it does not exist, and raise ``UserError`` where no file can be written into it."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f'cannot write to the folder {folder}: {error.strerror}') from error


def check_installed(what: str, *names: str) -> None:
    """Raise ``UserError`` where packages that something needs are not installed."""
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise UserError(f'{what} needs {", ".join(missing)}: pip install {" ".join(missing)}')
