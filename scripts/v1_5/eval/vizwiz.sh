#!/usr/bin/env bash
# VizWiz, test: answers, and the file for its server.
#
#   scripts/v1_5/eval/vizwiz.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/vizwiz.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/vizwiz}"
IMAGES="${IMAGES:-$DATA/test}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$NAME.jsonl" \
    --question-file "$DATA/llava_test.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_vizwiz_for_submission.py" \
    --annotation-file "$DATA/llava_test.jsonl" \
    --result-file "$DATA/answers/$NAME.jsonl" \
    --result-upload-file "$DATA/answers_upload/$NAME.json"
