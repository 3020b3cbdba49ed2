#!/usr/bin/env bash
# Safety of a tiny checkpoint at laptop size: twin of scripts/eval/safety.sh, the same code path, on the CPU, with the
# picture world that can refuse.
#
#   python -m regap_patch.study.refusal_world --output_path playground/runs/refusal --size smoke
#   scripts/mini/eval/safety.sh [more flags of `regap eval run`]
#   ARM=off NUM_CHUNKS=2 scripts/mini/eval/safety.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped. Status 3: too many judgements are missing.
set -euo pipefail

aligned_model() {  # the language model under the projectors, as refusal_world.json names it
    sed -nE 's/^.*"aligned": "([^"]*)".*$/\1/p' "$RUNS/refusal_world.json" 2>/dev/null | head -n 1 || true
}

RUNS="${RUNS:-playground/runs/refusal}"
ARM="${ARM:-on}"                        # off: the projector that was trained without the regulariser
MODEL="${MODEL:-$RUNS/llava-pretrain-$ARM}"
MODEL_BASE="${MODEL_BASE:-$(aligned_model)}"
BATCH_SIZE="${BATCH_SIZE:-32}"
KIND="${KIND:-llava}"
PROFILE="${PROFILE:-smoke}"             # benchmarks and image modes: see `regap eval list`
TASKS="${TASKS:-}"                      # benchmarks in their place, commas between; name=FOLDER
IMAGE_MODE="${IMAGE_MODE:-}"            # image modes in their place
LIMIT="${LIMIT:-}"                      # the first so many items of each benchmark
DATA="${DATA:-$RUNS}"                   # a folder for each benchmark
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/mini-safety}"
JUDGES="${JUDGES:-world,refusal-rules-own,scorer}"
JUDGE_FLAGS="${JUDGE_FLAGS:-}"          # of `regap eval judge`: --judge_model, --judge_endpoint, ...
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-24}"
SEED="${SEED:-0}"
DEVICE="${DEVICE:-cpu}"
NUM_CHUNKS="${NUM_CHUNKS:-1}"           # processes; they share the CPU

source "$(dirname "${BASH_SOURCE[0]}")/../../eval/shards.sh"

evaluate "$@"
