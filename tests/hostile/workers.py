"""Processes that try cases, are watched while they do, and are started anew when they die or hang."""

import collections
import json
import logging
import resource
import select
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from .arguments import Arguments
from .checkpoints import Checkpoints, status

SECONDS = 20  # one case may take
ADDRESS_SPACE = 6 << 30  # bytes beyond what a worker has when it starts
KINDS = {'checkpoints': Checkpoints, 'arguments': Arguments}


def work(kind: str, folder: str) -> None:
    """Try the cases whose numbers come from standard input; a report on each goes to standard output."""
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    out, sys.stdout = sys.stdout, sys.stderr
    tries = KINDS[kind](Path(folder))
    limit = status('VmSize') + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print('ready', file=out, flush=True)
    for line in sys.stdin:
        print(json.dumps(tries.attempt(int(line))), file=out, flush=True)


class Worker:
    """A process that tries cases, and is started anew when it dies or hangs."""

    def __init__(self, kind: str) -> None:
        self.kind, self.process, self.folder = kind, None, None

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix='hostile-')
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent), self.kind, '--work', self.folder.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert self.process.stdout.readline() == 'ready\n', 'the worker does not start'

    def attempt(self, case: int) -> dict:
        if self.process is None:
            self.start()
        self.process.stdin.write(f'{case}\n')
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return dict(what='?', failure=f'more than {SECONDS} seconds')
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.stop()
            return dict(what='?', failure=f'the process died with status {code}')
        return json.loads(line)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            self.folder.cleanup()
        self.process = None


def run(kind: str, cases: range, say: bool = True) -> tuple[collections.Counter, dict[int, str], dict]:
    """Try cases.

    Returns:
        tuple: How often which outcome; case -> what it is and how it failed; the worst seconds and bytes.
    """
    outcomes, failures, worst = collections.Counter(), {}, dict(seconds=0.0, memory=0)
    worker = Worker(kind)
    try:
        for done, case in enumerate(cases, 1):
            report = worker.attempt(case)
            if 'failure' in report:
                failures[case] = f'{report["what"]}: {report["failure"]}'
                if say:
                    print(f'\ncase {case}: {failures[case]}', flush=True)
            if say and report.get('seconds', 0) > 1:
                print(f'\ncase {case}: {report["what"]}: {report["seconds"]:.1f} s', flush=True)
            outcomes['failure' if 'failure' in report else report['outcome']] += 1
            for key in worst:
                worst[key] = max(worst[key], report.get(key, 0))
            if say and done % 200 == 0:
                print(f'\r{done} of {len(cases)}, {len(failures)} failures', end='', flush=True)
    finally:
        worker.stop()
    return outcomes, failures, worst
