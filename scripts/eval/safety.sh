#!/usr/bin/env bash
# Safety of a checkpoint, with and without a picture: answers of all GPUs, verdicts, metrics.json and a report.
#
#   MODEL=checkpoints/my-llava scripts/eval/safety.sh [more flags of `regap eval run`]
#   CUDA_VISIBLE_DEVICES=0,1,2,3 PROFILE=paper MODEL=checkpoints/my-llava scripts/eval/safety.sh
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped. Status 3: too many judgements are missing.
set -euo pipefail

KIND="${KIND:-llava}"                   # huggingface: a model in transformers' own format
PROFILE="${PROFILE:-quick}"             # benchmarks and image modes: see `regap eval list`
TASKS="${TASKS:-}"                      # benchmarks in their place, commas between; name=FOLDER
IMAGE_MODE="${IMAGE_MODE:-}"            # image modes in their place
LIMIT="${LIMIT:-}"                      # the first so many items of each benchmark
DATA="${DATA:-playground/data/safety}"  # a folder for each benchmark
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/safety}"
JUDGES="${JUDGES:-llama-guard-3-8b,beaver-dam-7b,scorer}"
JUDGE_FLAGS="${JUDGE_FLAGS:-}"          # of `regap eval judge`: --judge_model, --judge_endpoint, ...
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-512}"
SEED="${SEED:-0}"

source "$(dirname "${BASH_SOURCE[0]}")/shards.sh"

evaluate "$@"
