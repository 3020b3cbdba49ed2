#!/usr/bin/env bash
# GQA, test-dev balanced: answers, and the score of GQA's own program if it lies in GQA_DIR.
#
#   scripts/v1_5/eval/gqa.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/gqa.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/gqa}"
SPLIT="${SPLIT:-llava_gqa_testdev_balanced}"
GQA_DIR="${GQA_DIR:-$DATA/data}"       # with images/ and GQA's program
GQA_EVAL="${GQA_EVAL:-eval/eval.py}"   # inside GQA_DIR
IMAGES="${IMAGES:-$GQA_DIR/images}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$SPLIT/$NAME/merge.jsonl" \
    --question-file "$DATA/$SPLIT.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_gqa_for_eval.py" \
    --src "$DATA/answers/$SPLIT/$NAME/merge.jsonl" --dst "$GQA_DIR/testdev_balanced_predictions.json"
if [[ "${DRY_RUN:-0}" == 1 || -f "$GQA_DIR/$GQA_EVAL" ]]; then
    step env -C "$GQA_DIR" "$PYTHON" "$GQA_EVAL" --tier testdev_balanced
else
    echo "GQA is scored by its own $GQA_EVAL, which $GQA_DIR does not hold; the predictions are written." >&2
fi
