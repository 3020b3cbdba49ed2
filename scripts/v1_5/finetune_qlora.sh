#!/usr/bin/env bash
# Stage 2 of LLaVA v1.5 with QLoRA: finetune_lora.sh with the frozen language model held in 4 bits, for small GPUs.
#
#   scripts/v1_5/finetune_qlora.sh [more flags of llava.train.train]
#   BITS=8 BATCH_PER_GPU=4 scripts/v1_5/finetune_qlora.sh
#
# Every upper-case name below can be set from outside. DRY_RUN=1 prints the command and stops. The command, versions
# and commit are written to command.json in OUTPUT_DIR first. Interrupted? Run the same line again: it goes on from
# the last checkpoint. Its twin for a laptop is scripts/mini/finetune_qlora.sh.
set -euo pipefail

REGAP="${REGAP:-on}"                    # which projector to start from; the regulariser itself is for stage 1 only
MODEL_SIZE="${MODEL_SIZE:-7b}"          # 7b or 13b: which Vicuna v1.5
MODEL="${MODEL:-lmsys/vicuna-$MODEL_SIZE-v1.5}"
VISION_TOWER="${VISION_TOWER:-openai/clip-vit-large-patch14-336}"
PROJECTOR="${PROJECTOR:-checkpoints/llava-v1.5-$MODEL_SIZE-pretrain-$REGAP/mm_projector.bin}"
DATA="${DATA:-playground/data/llava_v1_5_mix665k.json}"
IMAGES="${IMAGES:-playground/data}"
OUTPUT_DIR="${OUTPUT_DIR:-checkpoints/llava-v1.5-$MODEL_SIZE-qlora-$REGAP}"
BATCH_SIZE="${BATCH_SIZE:-128}"         # samples of an optimizer step, over all GPUs; the rest is accumulated
BATCH_PER_GPU="${BATCH_PER_GPU:-16}"    # samples of a GPU at once
LEARNING_RATE="${LEARNING_RATE:-2e-4}"  # of the adapters
PROJECTOR_LEARNING_RATE="${PROJECTOR_LEARNING_RATE:-2e-5}"
LORA_R="${LORA_R:-128}"                 # rank of the adapters
LORA_ALPHA="${LORA_ALPHA:-256}"         # their scale is LORA_ALPHA / LORA_R
BITS="${BITS:-4}"                       # 4 or 8: of a frozen weight
EPOCHS="${EPOCHS:-1}"
SAVE_STEPS="${SAVE_STEPS:-1000}"        # upstream's 50000 comes after the end: nothing to resume from
SEED="${SEED:-42}"
ZERO="${ZERO:-2}"                       # 0 or 2: ZeRO-3 cannot cut weights of few bits
NUM_GPUS="${NUM_GPUS:-8}"               # on this node
NNODES="${NNODES:-1}"
NODE_RANK="${NODE_RANK:-0}"
MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" # of node 0; one node needs neither this nor the port
MASTER_PORT="${MASTER_PORT:-29500}"
BF16="${BF16:-True}"
TF32="${TF32:-True}"
GRADIENT_CHECKPOINTING="${GRADIENT_CHECKPOINTING:-True}"
NUM_WORKERS="${NUM_WORKERS:-4}"         # processes that load data, for each GPU
REPORT_TO="${REPORT_TO:-none}"          # tensorboard, wandb: what is installed; regap plot needs none of them
USE_CPU="${USE_CPU:-False}"
ENTRY="${ENTRY:-llava.train.train_mem}" # with FlashAttention where it is installed
PYTHON="${PYTHON:-python}"

source "$(dirname "${BASH_SOURCE[0]}")/../stages.sh"
finetune_qlora "$@"
