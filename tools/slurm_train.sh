#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are as in OpenMMLab.
set -euo pipefail
[ $# -ge 4 ] || { echo 'usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options]' >&2; exit 2; }
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
slurm train "$1" "$2" "$3" --work-dir "$4" "${@:5}"
