#!/usr/bin/env bash
# MME: answers and the scores of its fourteen tasks.
#
#   scripts/v1_5/eval/mme.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/mme.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/MME}"
IMAGES="${IMAGES:-$DATA/MME_Benchmark_release_version}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$NAME.jsonl" \
    --question-file "$DATA/llava_mme.jsonl" --image-folder "$IMAGES" "$@"
step "$PYTHON" "$REPOSITORY/scripts/convert_answer_to_mme.py" --experiment "$NAME" --base-dir "$DATA"
step "$PYTHON" -m llava.eval.eval_mme \
    --results_dir "$DATA/eval_tool/answers/$NAME" \
    --answers-file "$DATA/answers/$NAME.jsonl" \
    --output-path "$DATA/scores/$NAME.json"
