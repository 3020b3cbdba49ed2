#!/usr/bin/env bash
# Stage 2 at laptop size with QLoRA: finetune_lora.sh with the frozen language model held in 4 bits. Twin of
# scripts/v1_5/finetune_qlora.sh: the same code path, small numbers, on the CPU.
#
#   scripts/mini/finetune_qlora.sh [more flags of llava.train.train]
#   BITS=8 scripts/mini/finetune_qlora.sh
#
# Every upper-case name below can be set from outside. DRY_RUN=1 prints the command and stops.
# Interrupted? Run the same line again: it goes on from the last checkpoint.
set -euo pipefail

REGAP="${REGAP:-on}"                    # which projector to start from; the regulariser itself is for stage 1 only
RUNS="${RUNS:-playground/runs/quickstart}"
MODEL="${MODEL:-$RUNS/llama}"
VISION_TOWER="${VISION_TOWER:-$RUNS/tower}"
PROJECTOR="${PROJECTOR:-$RUNS/llava-pretrain-$REGAP/mm_projector.bin}"
DATA="${DATA:-$RUNS/world/finetune.json}"
IMAGES="${IMAGES:-$RUNS/world/images}"
OUTPUT_DIR="${OUTPUT_DIR:-$RUNS/llava-qlora-$REGAP}"
ZERO="${ZERO:-0}"                       # 0: no DeepSpeed; 2: ZeRO-2
NUM_GPUS="${NUM_GPUS:-1}"               # processes; they share the CPU
NNODES="${NNODES:-1}"
NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" # of node 0; one node needs neither this nor the port
MASTER_PORT="${MASTER_PORT:-29500}"
BATCH_SIZE="${BATCH_SIZE:-16}"          # samples of an optimizer step, over all processes
BATCH_PER_GPU="${BATCH_PER_GPU:-$((BATCH_SIZE / NUM_GPUS / NNODES))}"
LEARNING_RATE="${LEARNING_RATE:-2e-3}"  # of the adapters
PROJECTOR_LEARNING_RATE="${PROJECTOR_LEARNING_RATE:-1e-3}"
LORA_R="${LORA_R:-8}"                   # rank of the adapters
LORA_ALPHA="${LORA_ALPHA:-16}"          # their scale is LORA_ALPHA / LORA_R
BITS="${BITS:-4}"                       # 4 or 8: of a frozen weight
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
finetune_qlora "$@"
