#!/usr/bin/env bash
# Install the environment and run the tests, with one single-threaded process per core (at most four, of up to 5 GB each).
# `--stack` must come first; other arguments are passed to pytest:
#
#   tools/run_tests.sh                                         # all tests
#   tools/run_tests.sh -m "not slow"                           # fast subset, under three minutes
#   tools/run_tests.sh --stack openmmlab -m "not slow"         # the same on upstream OpenMMLab
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/_stack.sh
tools/setup_env.sh --stack "$STACK"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec "$VENV/bin/python" -m pytest -n logical --maxprocesses 4 --dist worksteal "$@"
