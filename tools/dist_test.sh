#!/usr/bin/env bash
# usage: tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [options of tools/test.py]
#
#   CONFIG      config file
#   CHECKPOINT  file or URL
#   PROCESSES   number on this machine: one per GPU, or any number on a CPU (gloo)
#
# NNODES, NODE_RANK, MASTER_ADDR and PORT are as in OpenMMLab. For 8 GPUs:
#
#   tools/dist_test.sh configs/detection/retinanet_convmlp_s_fpn_1x_coco.py epoch_12.pth 8 --out predictions.pkl
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_launch.sh"
needs 3 "$@"
launch test "$3" "$1" "$2" "${@:4}"
