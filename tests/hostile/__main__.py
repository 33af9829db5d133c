"""Files and arguments that are made to break what reads them, and workers that are watched while they try.

    FUZZ_CASES=10000 python tests/hostile checkpoints   # mutated and malicious checkpoint files
    FUZZ_CASES=4000 python tests/hostile arguments      # constructor arguments
    python tests/hostile checkpoints --show 1234        # write that file to hostile/ and try it here

A case is a number: the same number makes the same case. Each is tried in a worker process with a limit on its address
space; one that dies, hangs, fills memory, runs what is in a file or lets an error pass that is not the package's own
counts as a failure, and is named.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path[:0] = map(str, Path(__file__).parents[1:3])  # the tests and the package

from hostile.workers import KINDS, run, work  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=KINDS)
    parser.add_argument('--first', type=int, default=0, help='the number of the first case')
    parser.add_argument('--show', type=int, metavar='CASE', help='try one case in this process, and keep its file')
    parser.add_argument('--work', metavar='FOLDER', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.kind, args.work)
    elif args.show is not None:
        folder = Path('hostile')
        folder.mkdir(exist_ok=True)
        print(KINDS[args.kind](folder).attempt(args.show))
        print(KINDS[args.kind](folder).make(args.show))
    else:
        began, count = time.monotonic(), int(os.environ.get('FUZZ_CASES', 10_000))
        outcomes, failures, worst = run(args.kind, range(args.first, args.first + count))
        print(f'\r{count} cases in {time.monotonic() - began:.0f} s, {len(failures)} failures' + ' ' * 20)
        print(f'slowest {worst["seconds"]:.1f} s, most memory {worst["memory"] / 2**20:.0f} MiB beyond the start')
        for outcome, number_of in outcomes.most_common():
            print(f'{number_of:7d}  {outcome}')
        return bool(failures)
    return 0


if __name__ == '__main__':
    sys.exit(main())
