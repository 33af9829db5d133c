"""What is installed, which stack it is, what works, what does not, and the command that mends it.

The exit status is 0 where all is well, or 1.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        from mlp_backbones.environment import examine
    except ModuleNotFoundError:
        print(
            f'mlp_backbones is not installed in {sys.prefix}. Install it with:\n'
            f'  {sys.executable} -m pip install -e {Path(__file__).resolve().parents[1]}',
            file=sys.stderr,
        )
        return 1

    with quiet():
        found = examine()
    print(f'mlp_backbones in {sys.prefix}\n')
    for name, (well, said) in found.items():
        print(f'  {"ok" if well else "!!"}  {name:<12} {said if well else said.splitlines()[0][:90]}')
    problems = {name: said for name, (well, said) in found.items() if not well}
    if not problems:
        print('\nAll is well.')
        return 0
    # One cause often has several effects: each message is said once.
    for said in dict.fromkeys(problems.values()):
        names = ', '.join(name for name, other in problems.items() if other == said)
        print(f'\n{names}: {said}')
    return 1


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the hosts say when they are imported, and gloo from C++."""
    sys.stdout.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(os.devnull, 'w') as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)


if __name__ == '__main__':
    sys.exit(main())
