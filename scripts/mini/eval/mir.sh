#!/usr/bin/env bash
# Modality Integration Rate of tiny checkpoints at laptop size: twin of scripts/eval/mir.sh, on the CPU.
#
#   scripts/mini/eval/mir.sh [more flags of `regap mir`]
#
# Every upper-case name can be set from outside; --help lists all of the twin's. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: what is measured and unchanged is not measured again.
set -euo pipefail

RUNS="${RUNS:-playground/runs/quickstart}"
MODELS="${MODELS:-$RUNS/llava-finetune-off $RUNS/llava-finetune-on}"
IMAGES="${IMAGES:-$RUNS/world/images}"
TEXTS="${TEXTS:-$RUNS/world/pretrain.json}"
PAIRS="${PAIRS:-20}"
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/mini-mir}"
DEVICE="${DEVICE:-cpu}"
export MODELS IMAGES TEXTS PAIRS OUTPUT_DIR DEVICE

exec "$(dirname "${BASH_SOURCE[0]}")/../../eval/mir.sh" "$@"
