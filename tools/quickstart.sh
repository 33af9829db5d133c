#!/usr/bin/env bash
# usage: tools/quickstart.sh [--stack onedl|openmmlab]
#
# From a fresh machine to a detector: install the environment, train RetinaNet with ConvMLP-S on synthetic shapes,
# evaluate it with COCO's metrics and draw its detections. Completed steps are skipped.
#
#   tools/quickstart.sh --stack openmmlab   # upstream OpenMMLab instead of the onedl forks
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' tools/quickstart.sh; }
source tools/_stack.sh
case ${1:-} in -h | --help) usage && exit 0 ;; esac
[ $# -eq 0 ] || { usage >&2; exit 2; }
CONFIG=configs/detection/retinanet_convmlp_s_fpn_shapes.py
WORK=work_dirs/quickstart$SUFFIX
CHECKPOINT=$WORK/final.pth

tools/setup_env.sh --stack "$STACK"
python=$VENV/bin/python

if [ -f "$CHECKPOINT" ]; then
  echo "Trained already: $CHECKPOINT"
else
  echo "Training $CONFIG (5 to 8 minutes on 2 cores)"
  "$python" tools/train.py "$CONFIG" --work-dir "$WORK" --resume
  last=$(cat "$WORK/last_checkpoint")
  cp "$last" "$CHECKPOINT.partial"
  mv "$CHECKPOINT.partial" "$CHECKPOINT"
fi

if [ -f "$WORK/detections.png" ] && [ "$WORK/detections.png" -nt "$CHECKPOINT" ]; then
  echo "Evaluated already: $WORK/detections.png"
else
  echo 'Evaluating on images it has not trained on'
  "$python" tools/test.py "$CONFIG" "$CHECKPOINT" --work-dir "$WORK/test" --out "$WORK/detections.pkl" | tee "$WORK/test.log"
  "$python" tools/draw_detections.py "$WORK/detections.pkl" data/shapes/coco/annotations/instances_val2017.json \
    data/shapes/coco/val2017 "$WORK/detections.png" --score 0.4
fi

ap=$(grep -o 'coco/bbox_mAP: [0-9.]*' "$WORK/test.log" | tail -n 1 | cut -d ' ' -f 2)
ap50=$(grep -o 'coco/bbox_mAP_50: [0-9.]*' "$WORK/test.log" | tail -n 1 | cut -d ' ' -f 2)
cat <<END

box AP       $ap (AP50 $ap50) on 100 images that were not trained on
checkpoint   $CHECKPOINT
pictures     $WORK/detections.png (left: ground truth, right: detections)

Next, on COCO (annotations/, train2017/ and val2017/ in data/coco, or anywhere with data_root):
  source $VENV/bin/activate
  tools/dist_train.sh configs/detection/retinanet_convmlp_s_fpn_1x_coco.py 8 --cfg-options data_root=data/coco/
END
