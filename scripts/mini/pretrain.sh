#!/usr/bin/env bash
# Stage 1 at laptop size: the projector learns to caption, everything else is frozen. Twin of
# scripts/v1_5/pretrain.sh: the same code path, small numbers, float32 on the CPU.
#
#   REGAP=on scripts/mini/pretrain.sh [more flags of llava.train.train]
#   ZERO=3 NUM_GPUS=2 scripts/mini/pretrain.sh
#
# Every upper-case name below can be set from outside. DRY_RUN=1 prints the command and stops.
# Interrupted? Run the same line again: it goes on from the last checkpoint.
set -euo pipefail

REGAP="${REGAP:-on}"                    # on: the defaults of regap_patch.run; off: no regulariser, gaps logged all the same
REGAP_FLAGS="${REGAP_FLAGS:-}"          # of regap_patch.run while REGAP is on: "--regap_loss pairwise_l2 --regap_weight 0.1"
RUNS="${RUNS:-playground/runs/quickstart}"
MODEL="${MODEL:-$RUNS/llama}"
VISION_TOWER="${VISION_TOWER:-$RUNS/tower}"
DATA="${DATA:-$RUNS/world/pretrain.json}"
IMAGES="${IMAGES:-$RUNS/world/images}"
OUTPUT_DIR="${OUTPUT_DIR:-$RUNS/llava-pretrain-$REGAP}"
ZERO="${ZERO:-0}"                       # 0: no DeepSpeed; 2, 3 or 3_offload: see deepspeed_configs/README.md
NUM_GPUS="${NUM_GPUS:-1}"               # processes; they share the CPU
NNODES="${NNODES:-1}"
NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" # of node 0; one node needs neither this nor the port
MASTER_PORT="${MASTER_PORT:-29500}"
BATCH_SIZE="${BATCH_SIZE:-32}"          # samples of an optimizer step, over all processes
BATCH_PER_GPU="${BATCH_PER_GPU:-$((BATCH_SIZE / NUM_GPUS / NNODES))}"
LEARNING_RATE="${LEARNING_RATE:-1e-3}"
EPOCHS="${EPOCHS:-1}"
SAVE_STEPS="${SAVE_STEPS:-100}"
SEED="${SEED:-42}"
BF16="${BF16:-False}"
TF32="${TF32:-False}"
GRADIENT_CHECKPOINTING="${GRADIENT_CHECKPOINTING:-False}"
NUM_WORKERS="${NUM_WORKERS:-0}"
REPORT_TO="${REPORT_TO:-none}"
USE_CPU="${USE_CPU:-True}"
ENTRY="${ENTRY:-llava.train.train}"
PYTHON="${PYTHON:-python}"

source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
pretrain "$@"
