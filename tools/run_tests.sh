#!/usr/bin/env bash
# Sets everything up and runs the tests. Arguments go to pytest:
#
#   tools/run_tests.sh                     # all
#   tools/run_tests.sh -m "not slow"       # the everyday subset, under three minutes
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools/setup_env.sh
exec "${VENV:-.venv}/bin/python" -m pytest "$@"
