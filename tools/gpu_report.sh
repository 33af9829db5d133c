#!/usr/bin/env bash
# usage: tools/gpu_report.sh [FOLDER] [ORIGINALS.py]
#
# The tests of tests/cuda and the benchmark on the first GPU, in at most 9 minutes, into FOLDER (default: work_dirs/gpu):
#
#   report.md                   the machine, the tests' result and the tables
#   tests.txt                   what the tests printed
#   NAME.json                   the figures of the table NAME
#
# With ORIGINALS.py, a module with functions convmlp_s and repmlp_t224, these are measured beside ours. Needs torch,
# mmengine and pytest; what else is missing (timm, mmpretrain, mmdet, mmseg) is left out. Without internet:
#
#   WHEELS=folder tools/gpu_report.sh   # installs the wheels in it, without their requirements, beside the report
#   PYTHON=python3 tools/gpu_report.sh  # default: .venv/bin/python, or python3 where there is none
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' tools/gpu_report.sh; }
case ${1:-} in -h | --help) usage && exit 0 ;; esac
[ $# -le 2 ] || { usage >&2; exit 2; }
OUT=${1:-work_dirs/gpu}
ORIGINALS=${2:-}
[ -z "$ORIGINALS" ] || [ -f "$ORIGINALS" ] || { echo "error: $ORIGINALS does not exist" >&2; exit 2; }
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=.venv/bin/python || PYTHON=python3; }
mkdir -p "$OUT"
if [ -n "${WHEELS:-}" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --upgrade --target "$OUT/site" "$WHEELS"/*.whl
  export PYTHONPATH=$OUT/site:${PYTHONPATH:-}
fi
export PYTHONPATH=$PWD:${PYTHONPATH:-}
"$PYTHON" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo 'error: torch finds no GPU' >&2; exit 1; }
has() { "$PYTHON" -c "import $1" 2>/dev/null; }

# measure NAME SECONDS ARGUMENTS...: a table into the report; what was measured within the time is kept.
measure() {
  local name=$1 limit=$2
  shift 2
  printf '\n## %s\n\n' "$name" >>"$OUT/report.md"
  timeout "$limit" "$PYTHON" tools/benchmark.py "$@" --out "$OUT/$name.json" 2>&1 | tee -a "$OUT/report.md" \
    || echo "(stopped: not finished, or not within $limit seconds)" | tee -a "$OUT/report.md"
}

{
  echo '# GPU report'
  echo
  "$PYTHON" -c 'import torch; print(torch.cuda.get_device_name(), "x", torch.cuda.device_count(), "torch", torch.__version__)'
} | tee "$OUT/report.md"
TEST_CUDA=1 timeout 170 "$PYTHON" -m pytest -q tests/cuda >"$OUT/tests.txt" 2>&1 || true
printf '\nTests: %s\n' "$(tail -n 1 "$OUT/tests.txt")" | tee -a "$OUT/report.md"

candidates() { # MODEL ORIGINAL: the original's forms, then ours
  [ -z "$2" ] || printf '%s\n' "$2@tf32" "$2@autocast,channels_last" "$2@autocast,compile"
  printf '%s\n' "$1@tf32" "$1@autocast,channels_last" "$1@deploy,autocast" "$1@deploy,autocast,compile" \
    "$1@deploy,bf16,cuda_graphs"
}
original() { [ -n "$ORIGINALS" ] && echo "$ORIGINALS:$1" || true; }
timm() { ! has timm || echo "timm/$1"; }
mapfile -t convmlp < <(candidates ConvMLP:arch=s,out_indices=-1 "$(original convmlp_s)")
mapfile -t repmlp < <(candidates RepMLP:arch=t224,out_indices=-1 "$(original repmlp_t224)")
mapfile -t resmlp < <(candidates ResMLP:arch=12 "$(timm resmlp_12_224)")
mapfile -t gmlp < <(candidates GMLP:arch=s16 "$(timm gmlp_s16_224)")
for family in convmlp repmlp resmlp gmlp; do
  declare -n forms=$family
  measure "$family" 65 "${forms[@]}" --batch 128 1 16 --step inference --no-memory
done
models=(ConvMLP:arch=s,out_indices=-1 RepMLP:arch=t224,out_indices=-1 ResMLP:arch=12 GMLP:arch=s16)
training=()
for model in "${models[@]}"; do
  training+=("$model@tf32" "$model@autocast" "$model@autocast,channels_last")
done
measure training 40 "${training[@]}" --batch 128 --step training
measure detection 40 "${models[@]/%/@autocast}" --sizes 800x1216 --batch 1 2
detector=configs/detection/retinanet_convmlp_s_fpn_1x_coco.py # from the image to boxes
! has mmdet || measure detectors 25 "$detector" "$detector@deploy,channels_last" "$detector@deploy,autocast" --sizes 800x1216 \
  --step inference --no-memory
echo "Written: $OUT/report.md"
