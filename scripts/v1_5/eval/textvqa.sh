#!/usr/bin/env bash
# TextVQA, validation: answers and accuracy, with OCR tokens in the prompt as LLaVA publishes it, or without.
#
#   scripts/v1_5/eval/textvqa.sh [more flags of llava.eval.model_vqa_loader]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 MODEL=checkpoints/my-llava scripts/v1_5/eval/textvqa.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

DATA="${DATA:-playground/data/eval/textvqa}"
OCR="${OCR:-on}"                       # off: the same questions without the tokens; numbers of the two do not compare
IMAGES="${IMAGES:-$DATA/train_images}"

source "$(dirname "${BASH_SOURCE[0]}")/../../evaluation.sh"

case "$OCR" in
    on) QUESTIONS="$DATA/llava_textvqa_val_v051_ocr.jsonl" ;;
    off) QUESTIONS="$DATA/llava_textvqa_val_v051.jsonl" NAME="$NAME-without-ocr" ;;
    *) echo "OCR is '$OCR': set it to on or off." >&2; exit 2 ;;
esac
[[ "$OCR" == on ]] || step "$PYTHON" "$REPOSITORY/scripts/convert_textvqa_without_ocr.py" \
    --src "$DATA/llava_textvqa_val_v051_ocr.jsonl" --dst "$QUESTIONS"
ask model_vqa_loader "$DATA/answers/$NAME.jsonl" \
    --question-file "$QUESTIONS" --image-folder "$IMAGES" "$@"
step "$PYTHON" -m llava.eval.eval_textvqa \
    --annotation-file "$DATA/TextVQA_0.5.1_val.json" \
    --result-file "$DATA/answers/$NAME.jsonl" \
    --output-path "$DATA/scores/$NAME.json"
