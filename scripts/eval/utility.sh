#!/usr/bin/env bash
# Utility of a checkpoint on the benchmarks whose scores need no judge model, beside its safety: the claim "at no
# cost" is a paired comparison of two such runs (`regap eval compare A B`).
#
#   MODEL=checkpoints/my-llava scripts/eval/utility.sh [more flags of `regap eval run`]
#
# Every upper-case name can be set from outside; --help lists all. DRY_RUN=1 prints the commands and stops.
# Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

KIND="${KIND:-llava}"                   # huggingface: a model in transformers' own format
PROFILE="${PROFILE:-}"
TASKS="${TASKS:-pope,scienceqa,textvqa,mme}"
IMAGE_MODE="${IMAGE_MODE:-}"            # as the data is
LIMIT="${LIMIT:-}"                      # the first so many items of each benchmark
DATA="${DATA:-playground/data/safety}"  # a folder for each benchmark
OUTPUT_DIR="${OUTPUT_DIR:-playground/runs/utility}"
JUDGES="${JUDGES:-scorer}"
JUDGE_FLAGS="${JUDGE_FLAGS:-}"          # of `regap eval judge`: --judge_model, --judge_endpoint, ...
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-16}"
SEED="${SEED:-0}"

source "$(dirname "${BASH_SOURCE[0]}")/shards.sh"

evaluate "$@"
