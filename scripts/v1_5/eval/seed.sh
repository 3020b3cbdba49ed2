#!/usr/bin/env bash
# SEED-Bench: answers, accuracy by kind of question, and the file for its leaderboard.
#
#   scripts/v1_5/eval/seed.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/seed.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/seed_bench}"
IMAGES="${IMAGES:-$DATA}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$NAME/merge.jsonl" \
    --question-file "$DATA/llava-seed-bench.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_seed_for_submission.py" \
    --annotation-file "$DATA/SEED-Bench.json" \
    --result-file "$DATA/answers/$NAME/merge.jsonl" \
    --result-upload-file "$DATA/answers_upload/$NAME.jsonl" \
    --output-path "$DATA/scores/$NAME.json"
