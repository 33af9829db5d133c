#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]: one process a GPU, or on a CPU with gloo.
set -euo pipefail
[ $# -ge 3 ] || { echo 'usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]' >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
launch test "$3" "$1" "$2" "${@:4}"
