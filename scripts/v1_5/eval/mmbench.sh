#!/usr/bin/env bash
# MMBench, development split: answers, and the spreadsheet for its server.
#
#   scripts/v1_5/eval/mmbench.sh [more flags of llava.eval.model_vqa_mmbench]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/mmbench.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/mmbench}"
SPLIT="${SPLIT:-mmbench_dev_20231003}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_mmbench "$DATA/answers/$SPLIT/$NAME.jsonl" --single-pred-prompt \
    --question-file "$DATA/$SPLIT.tsv" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_mmbench_for_submission.py" \
    --annotation-file "$DATA/$SPLIT.tsv" \
    --result-dir "$DATA/answers/$SPLIT" \
    --upload-dir "$DATA/answers_upload/$SPLIT" \
    --experiment "$NAME"
