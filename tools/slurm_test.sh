#!/usr/bin/env bash
# usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
#
#   PARTITION   partition of the cluster
#   JOB_NAME    name of the job
#   CONFIG      config file
#   CHECKPOINT  file or URL
#
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are as in OpenMMLab. For 8 GPUs:
#
#   GPUS=8 tools/slurm_test.sh gpu retinanet configs/detection/retinanet_convmlp_s_fpn_1x_coco.py epoch_12.pth
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
needs 4 "$@"
slurm test "$1" "$2" "$3" "$4" "${@:5}"
