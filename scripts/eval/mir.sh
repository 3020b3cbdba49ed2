#!/usr/bin/env bash
# Modality Integration Rate of checkpoints: each on a GPU of its own, all over the same pairs.
#
#   MODELS="checkpoints/baseline checkpoints/regap" scripts/eval/mir.sh [more flags of `regap mir`]
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: what is measured and unchanged is not measured again.
set -euo pipefail

MODELS="${MODELS:-}"                    # folders or hub names, blanks between; by default MODEL alone
IMAGES="${IMAGES:-playground/data/coco/val2017}"
TEXTS="${TEXTS:-playground/data/cnn_stories}"
PAIRS="${PAIRS:-100}"
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/mir}"

source "$(dirname "${BASH_SOURCE[0]}")/../evaluation.sh"

read -ra models <<<"${MODELS:-$MODEL}"
command=("$PYTHON" -m regap_patch.cli mir --images "$IMAGES" --texts "$TEXTS" --pairs "$PAIRS"
    --template "$CONV_MODE" --output_path "$OUTPUT_DIR")
[[ -z "$MODEL_BASE" ]] || command+=(--model_base "$MODEL_BASE")
[[ -z "$DEVICE" ]] || command+=(--device "$DEVICE")
command+=("$@")
list_gpus
for ((start = 0; start < ${#models[@]}; start += ${#gpus[@]})); do  # as many at a time as there are GPUs
    some=("${models[@]:start:${#gpus[@]}}")
    model_flags() { added=("${some[$1]}"); }
    on_all_gpus "${#some[@]}" model_flags "$OUTPUT_DIR" "${command[@]}"
done
step "${command[@]}" "${models[@]}"  # all are there: one table
