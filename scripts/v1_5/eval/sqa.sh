#!/usr/bin/env bash
# ScienceQA, test: answers and accuracy.
#
#   scripts/v1_5/eval/sqa.sh [more flags of llava.eval.model_vqa_science]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/sqa.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/scienceqa}"
IMAGES="${IMAGES:-$DATA/images/test}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_science "$DATA/answers/$NAME.jsonl" --single-pred-prompt \
    --question-file "$DATA/llava_test_CQM-A.json" --image-folder "$IMAGES" "$@"
step "$PYTHON" -m llava.eval.eval_science_qa \
    --base-dir "$DATA" \
    --result-file "$DATA/answers/$NAME.jsonl" \
    --output-file "$DATA/answers/${NAME}_output.json" \
    --output-result "$DATA/answers/${NAME}_result.json" \
    --output-path "$DATA/scores/$NAME.json"
