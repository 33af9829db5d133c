#!/usr/bin/env bash
# tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are as in OpenMMLab.
set -euo pipefail
[ $# -ge 4 ] || { echo 'usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options]' >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
slurm test "$1" "$2" "$3" "$4" "${@:5}"
