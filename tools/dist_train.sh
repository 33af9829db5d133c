#!/usr/bin/env bash
# usage: tools/dist_train.sh CONFIG PROCESSES [options of tools/train.py]
#
#   CONFIG     config file
#   PROCESSES  number on this machine: one per GPU, or any number on a CPU (gloo)
#
# NNODES, NODE_RANK, MASTER_ADDR and PORT are as in OpenMMLab. For 8 GPUs:
#
#   tools/dist_train.sh configs/detection/retinanet_convmlp_s_fpn_1x_coco.py 8 --amp
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
needs 2 "$@"
launch train "$2" "$1" "${@:3}"
