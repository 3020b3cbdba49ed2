#!/usr/bin/env bash
# MM-Vet: answers, and the file for its online evaluator.
#
#   scripts/v1_5/eval/mmvet.sh [more flags of llava.eval.model_vqa]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/mmvet.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/mm-vet}"
IMAGES="${IMAGES:-$DATA/images}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa "$DATA/answers/$NAME.jsonl" \
    --question-file "$DATA/llava-mm-vet.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_mmvet_for_eval.py" \
    --src "$DATA/answers/$NAME.jsonl" --dst "$DATA/results/$NAME.json"
