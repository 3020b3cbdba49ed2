#!/usr/bin/env bash
# POPE: answers and scores of its three ways of choosing absent objects.
#
#   scripts/v1_5/eval/pope.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/pope.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/pope}"
IMAGES="${IMAGES:-$DATA/val2014}"
QUESTIONS="${QUESTIONS:-$DATA/llava_pope_test.jsonl}"
LABELS="${LABELS:-$DATA/coco}"         # folder of coco_pope_*.json

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

ask model_vqa_loader "$DATA/answers/$NAME.jsonl" \
    --question-file "$QUESTIONS" --image-folder "$IMAGES" "$@"
step "$PYTHON" -m llava.eval.eval_pope \
    --annotation-dir "$LABELS" \
    --question-file "$QUESTIONS" \
    --result-file "$DATA/answers/$NAME.jsonl" \
    --output-path "$DATA/scores/$NAME.json"
