#!/usr/bin/env bash
# tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]: one process a GPU, or on a CPU with gloo.
set -euo pipefail
[ $# -ge 2 ] || { echo 'usage: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]' >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
launch train "$2" "$1" "${@:3}"
