#!/usr/bin/env bash
# Sets everything up and runs the tests, one process of one thread per core (four at most, of up to 5 GB each). `--stack`
# comes first, the other arguments go to pytest:
#
#   tools/run_tests.sh                                         # all
#   tools/run_tests.sh -m "not slow"                           # the everyday subset, under three minutes
#   tools/run_tests.sh --stack openmmlab -m "not slow"         # the same on upstream's OpenMMLab
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_stack.sh
tools/setup_env.sh --stack "$STACK"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$VENV/bin/python" -m pytest -n logical --maxprocesses 4 --dist worksteal "$@"
