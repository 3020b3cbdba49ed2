#!/usr/bin/env bash
# Utility of a tiny checkpoint at laptop size: twin of scripts/eval/utility.sh, the same code path, on the CPU.
#
#   MODEL=my-tiny-llava TASKS=pope=my/pope scripts/mini/eval/utility.sh [more flags of `regap eval run`]
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

MODEL="${MODEL:-playground/runs/quickstart/llava-finetune-on}"
KIND="${KIND:-llava}"
PROFILE="${PROFILE:-}"
TASKS="${TASKS:-pope}"
IMAGE_MODE="${IMAGE_MODE:-}"            # as the data is
LIMIT="${LIMIT:-20}"                    # the first so many items of each benchmark
DATA="${DATA:-playground/data/safety}"  # a folder for each benchmark
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/mini-utility}"
JUDGES="${JUDGES:-scorer}"
JUDGE_FLAGS="${JUDGE_FLAGS:-}"          # of `regap eval judge`: --judge_model, --judge_endpoint, ...
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-8}"
SEED="${SEED:-0}"
DEVICE="${DEVICE:-cpu}"
NUM_CHUNKS="${NUM_CHUNKS:-1}"           # processes; they share the CPU

source "$(dirname "${BASH_SOURCE[0]}")/../../eval/shards.sh"

evaluate "$@"
