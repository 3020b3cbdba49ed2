#!/usr/bin/env bash
# VQAv2, test-dev: answers, and the file for EvalAI.
#
#   scripts/v1_5/eval/vqav2.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/vqav2.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/vqav2}"
SPLIT="${SPLIT:-llava_vqav2_mscoco_test-dev2015}"
IMAGES="${IMAGES:-$DATA/test2015}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$SPLIT/$NAME/merge.jsonl" \
    --question-file "$DATA/$SPLIT.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_vqav2_for_submission.py" --dir "$DATA" --split "$SPLIT" --ckpt "$NAME"
