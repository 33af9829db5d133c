#!/usr/bin/env bash
# usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
#
#   PARTITION  partition of the cluster
#   JOB_NAME   name of the job
#   CONFIG     config file
#   WORK_DIR   directory for logs and checkpoints
#
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS are as in OpenMMLab. For 16 GPUs:
#
#   GPUS=16 tools/slurm_train.sh gpu retinanet configs/detection/retinanet_convmlp_s_fpn_1x_coco.py work_dirs/retinanet
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
needs 4 "$@"
slurm train "$1" "$2" "$3" --work-dir "$4" "${@:5}"
