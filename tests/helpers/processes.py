"""Runs of scripts in processes of their own, which start at once: a server did the imports, and forks them."""

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest

from helpers import ROOT

TRAIN = ROOT / 'tools/train.py'


def _main(script, arguments, cwd, log, limit, path, environment):
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = path
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.setpgid(0, 0)
    if limit:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    sys.argv = [str(script), *map(str, arguments)]
    runpy.run_path(str(script), run_name='__main__')


class Run:
    """A process of a script.

    Args:
        arguments: Of the script.
        cwd (Path): Where it runs; what it prints goes to ``log.txt`` there.
        limit (int, optional): The largest file it may write, in bytes.
        path (str, optional): A folder to import from.
        log (Path, optional): Another file for what it prints.
        script (Path): The script; ``tools/train.py`` by default.
    """

    def __init__(self, *arguments, cwd, limit=None, path=None, log=None, script=TRAIN):
        self.log = Path(log or Path(cwd) / 'log.txt')
        self.log.unlink(missing_ok=True)
        context = multiprocessing.get_context('forkserver')
        context.set_forkserver_preload(['helpers.preloaded'])
        with pytest.MonkeyPatch.context() as patch:  # older Python's server does not get ``sys.path``
            patch.setenv('PYTHONPATH', str(ROOT / 'tests'), prepend=os.pathsep)
            forkserver.ensure_running()
        settings = (limit, [path] if path else [], dict(os.environ))
        self.process = context.Process(target=_main, args=(script, arguments, str(cwd), str(self.log), *settings))
        self.process.start()

    @property
    def printed(self):
        return self.log.read_text(errors='replace') if self.log.exists() else ''

    def wait(self, seconds=300):
        """Wait for the end; returns the exit status, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f'still running after {seconds} s:\n{self.printed[-3000:]}'
        return self.process.exitcode

    def wait_for(self, condition, seconds=120):
        """Wait until ``condition()`` holds, while the process runs."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive() and time.monotonic() < end, self.printed[-3000:]
            time.sleep(0.002)

    def kill(self, number):
        """Send a signal to the process and its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def tool(name, *arguments, cwd, check=True):
    """Run a script of ``tools/`` to its end; returns its exit status, 0 if ``check``, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(*arguments, cwd=cwd, log=Path(folder) / 'log.txt', script=ROOT / 'tools' / name)
        code = run.wait(600)
        assert not check or code == 0, run.printed[-3000:]
        return code, run.printed


def leftovers(group):
    """Processes of a group that are still there."""
    found = subprocess.run(['ps', '-eo', 'pgid,stat,args'], capture_output=True, text=True).stdout.splitlines()
    return [line for line in found if line.split()[0] == str(group) and not line.split()[1].startswith('Z')]


def gone(group, seconds=30):
    end = time.monotonic() + seconds
    while (left := leftovers(group)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not left, left
