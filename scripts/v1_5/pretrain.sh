#!/usr/bin/env bash
# Stage 1 of LLaVA v1.5: the projector learns to caption, everything else is frozen. Upstream's hyper-parameters.
#
#   scripts/v1_5/pretrain.sh [more flags of llava.train.train]
#   MODEL_SIZE=13b REGAP=off scripts/v1_5/pretrain.sh
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=node-0 scripts/v1_5/pretrain.sh    # and NODE_RANK=1 on the other node
#
# Every upper-case name below can be set from outside. DRY_RUN=1 prints the command and stops. The command, versions
# and commit are written to command.json in OUTPUT_DIR first. Interrupted? Run the same line again: it goes on from
# the last checkpoint. Its twin for a laptop is scripts/mini/pretrain.sh.
set -euo pipefail

REGAP="${REGAP:-on}"                    # on: the defaults of regap_patch.run; off: no regulariser, gaps logged all the same
REGAP_FLAGS="${REGAP_FLAGS:-}"          # of regap_patch.run while REGAP is on: "--regap_loss pairwise_l2 --regap_weight 0.1"
MODEL_SIZE="${MODEL_SIZE:-7b}"          # 7b or 13b: which Vicuna v1.5
MODEL="${MODEL:-lmsys/vicuna-$MODEL_SIZE-v1.5}"
VISION_TOWER="${VISION_TOWER:-openai/clip-vit-large-patch14-336}"
DATA="${DATA:-playground/data/LLaVA-Pretrain/blip_laion_cc_sbu_558k.json}"
IMAGES="${IMAGES:-playground/data/LLaVA-Pretrain/images}"
OUTPUT_DIR="${OUTPUT_DIR:-checkpoints/llava-v1.5-$MODEL_SIZE-pretrain-$REGAP}"
BATCH_SIZE="${BATCH_SIZE:-256}"         # samples of an optimizer step, over all GPUs; the rest is accumulated
BATCH_PER_GPU="${BATCH_PER_GPU:-32}"    # samples of a GPU at once
LEARNING_RATE="${LEARNING_RATE:-1e-3}"
EPOCHS="${EPOCHS:-1}"
SAVE_STEPS="${SAVE_STEPS:-500}"         # upstream's 24000 comes after the end: nothing to resume from
SEED="${SEED:-42}"
ZERO="${ZERO:-2}"                       # 0, 2, 3 or 3_offload: see deepspeed_configs/README.md
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
pretrain "$@"
