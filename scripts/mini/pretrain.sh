#!/usr/bin/env bash
# Stage 1 at laptop size: the projector learns to caption, everything else is frozen. Twin of LLaVA v1.5's pretrain.sh:
# the same flags, minus DeepSpeed and half precision.
#
#   REGAP=on scripts/mini/pretrain.sh [more flags of llava.train.train]
#
# Every upper-case name below can be set from outside. DRY_RUN=1 prints the command and stops.
# Interrupted? Run the same line again: it goes on from the last checkpoint.
set -euo pipefail

REGAP="${REGAP:-on}"   # on: the defaults of regap_patch.run; off: the same run without the regulariser, gaps logged all the same
RUNS="${RUNS:-playground/runs/quickstart}"
MODEL="${MODEL:-$RUNS/llama}"
VISION_TOWER="${VISION_TOWER:-$RUNS/tower}"
DATA="${DATA:-$RUNS/world/pretrain.json}"
IMAGES="${IMAGES:-$RUNS/world/images}"
OUTPUT_DIR="${OUTPUT_DIR:-$RUNS/llava-pretrain-$REGAP}"
BATCH_SIZE="${BATCH_SIZE:-32}"
LEARNING_RATE="${LEARNING_RATE:-1e-3}"
EPOCHS="${EPOCHS:-1}"
SAVE_STEPS="${SAVE_STEPS:-100}"
SEED="${SEED:-42}"
PYTHON="${PYTHON:-python}"

if [[ "${1:-}" == "--help" ]]; then
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    sed -n 's/^\([A-Z_]*\)="\${[A-Z_]*:-\(.*\)}".*$/  \1 (\2)/p' "$0"
    exit 0
fi

case "$REGAP" in
    on) REGAP_FLAGS=() ;;
    off) REGAP_FLAGS=(--regap_loss off) ;;
    *) echo "REGAP is '$REGAP': set it to on or off." >&2; exit 2 ;;
esac

COMMAND=(
    "$PYTHON" -m regap_patch.run ${REGAP_FLAGS[@]+"${REGAP_FLAGS[@]}"} -m llava.train.train
    --model_name_or_path "$MODEL"
    --version plain
    --data_path "$DATA"
    --image_folder "$IMAGES"
    --vision_tower "$VISION_TOWER"
    --mm_projector_type mlp2x_gelu
    --tune_mm_mlp_adapter True
    --mm_vision_select_layer -2
    --mm_use_im_start_end False
    --mm_use_im_patch_token False
    --bf16 False
    --use_cpu True
    --output_dir "$OUTPUT_DIR"
    --num_train_epochs "$EPOCHS"
    --per_device_train_batch_size "$BATCH_SIZE"
    --per_device_eval_batch_size 4
    --gradient_accumulation_steps 1
    --evaluation_strategy no
    --save_strategy steps
    --save_steps "$SAVE_STEPS"
    --save_total_limit 1
    --learning_rate "$LEARNING_RATE"
    --weight_decay 0.
    --warmup_ratio 0.03
    --lr_scheduler_type cosine
    --logging_steps 1
    --tf32 False
    --model_max_length 2048
    --gradient_checkpointing False
    --dataloader_num_workers 0
    --lazy_preprocess True
    --report_to none
    --seed "$SEED"
    "$@"
)

if [[ "${DRY_RUN:-0}" == 1 ]]; then
    printf '%q ' "${COMMAND[@]}"
    echo
    exit 0
fi
"$PYTHON" -m regap_patch.study.environment --output_path "$OUTPUT_DIR" -- "${COMMAND[@]}"
exec "${COMMAND[@]}"
