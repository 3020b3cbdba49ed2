# The two stages of training, as the scripts in v1_5/ and mini/ start them. Those set the knobs, all of them, and
# source this file; it is not run by itself.

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

refuse() {
    echo "$1" >&2
    exit 2
}

show_help() {  # the caller's header, then its knobs: NAME (default): comment
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    sed -nE 's/^([A-Z0-9_]+)="\$\{[A-Z0-9_]+:-(.*)\}"( *# (.*))?$/  \1 (\2): \4/p' "$0" | sed 's/: $//'
}

pretrain() {  # stage 1: the projector learns to caption, everything else is frozen
    local regap=() stage=(--version plain --tune_mm_mlp_adapter True)
    read -r -a regap <<< "$REGAP_FLAGS"
    [[ "$REGAP" == on ]] || regap=(--regap_loss off)
    start "$@"
}

finetune() {  # stage 2: language model and projector learn dialogues
    local stage=(--pretrain_mm_mlp_adapter "$PROJECTOR")
    learn_dialogues "$@"
}

finetune_lora() {  # stage 2 with a frozen language model, of which adapters learn
    local stage=(--pretrain_mm_mlp_adapter "$PROJECTOR")
    add_adapters
    learn_dialogues "$@"
}

finetune_qlora() {  # the same with the frozen weights in few bits
    local stage=(--pretrain_mm_mlp_adapter "$PROJECTOR" --bits "$BITS")
    add_adapters
    learn_dialogues "$@"
}

finetune_task() {  # a LLaVA, which brings its projector, learns a task
    local stage=()
    learn_dialogues "$@"
}

finetune_task_lora() {
    local stage=()
    add_adapters
    learn_dialogues "$@"
}

add_adapters() {  # `stage` is the caller's, here and below
    stage+=(
        --lora_enable True
        --lora_r "$LORA_R"
        --lora_alpha "$LORA_ALPHA"
        --mm_projector_lr "$PROJECTOR_LEARNING_RATE"
    )
}

learn_dialogues() {  # the regulariser only records
    local regap=(--regap_loss off)
    stage+=(--version v1 --image_aspect_ratio pad --group_by_modality_length True)
    start "$@"
}

start() {  # `regap` and `stage` are the caller's
    case "${1:-}" in --help | -h) show_help; exit 0 ;; esac
    case "${REGAP:-on}" in on | off) ;; *) refuse "REGAP is '$REGAP': set it to on or off." ;; esac
    case "${MODEL_SIZE:-7b}" in 7b | 13b) ;; *) refuse "MODEL_SIZE is '$MODEL_SIZE': set it to 7b or 13b." ;; esac
    local config="$REPOSITORY/deepspeed_configs/zero$ZERO.json"
    [[ "$ZERO" == 0 || -f "$config" ]] || refuse "ZERO is '$ZERO': set it to 0, 2, 3 or 3_offload."
    local at_once=$((BATCH_PER_GPU * NUM_GPUS * NNODES))
    if ((at_once < 1 || BATCH_SIZE % at_once)); then
        refuse "BATCH_SIZE is $BATCH_SIZE, which is no multiple of the $at_once samples that $NNODES x $NUM_GPUS \
processes with BATCH_PER_GPU=$BATCH_PER_GPU take at once: change one of them."
    fi

    local command=("$PYTHON")
    if [[ "$NNODES" != 1 ]]; then
        command+=(-m torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" --nproc_per_node "$NUM_GPUS"
            --master_addr "$MASTER_ADDR" --master_port "$MASTER_PORT")
    elif [[ "$NUM_GPUS" != 1 || "$ZERO" != 0 ]]; then
        command+=(-m torch.distributed.run --standalone --nproc_per_node "$NUM_GPUS")
    fi
    [[ "$ZERO" == 0 || "$USE_CPU" != True ]] || command=(env DS_ACCELERATOR=cpu "${command[@]}")
    command+=(-m regap_patch.run ${regap[@]+"${regap[@]}"} -m "$ENTRY")
    [[ "$ZERO" == 0 ]] || command+=(--deepspeed "$config")
    command+=(
        --model_name_or_path "$MODEL"
        --data_path "$DATA"
        --image_folder "$IMAGES"
        --vision_tower "$VISION_TOWER"
        --mm_projector_type mlp2x_gelu
        --mm_vision_select_layer -2
        --mm_use_im_start_end False
        --mm_use_im_patch_token False
        "${stage[@]}"
        --use_cpu "$USE_CPU"
        --bf16 "$BF16"
        --tf32 "$TF32"
        --output_dir "$OUTPUT_DIR"
        --num_train_epochs "$EPOCHS"
        --per_device_train_batch_size "$BATCH_PER_GPU"
        --per_device_eval_batch_size 4
        --gradient_accumulation_steps $((BATCH_SIZE / at_once))
        --evaluation_strategy no
        --save_strategy steps
        --save_steps "$SAVE_STEPS"
        --save_total_limit 1
        --learning_rate "$LEARNING_RATE"
        --weight_decay 0.
        --warmup_ratio 0.03
        --lr_scheduler_type cosine
        --logging_steps 1
        --model_max_length 2048
        --gradient_checkpointing "$GRADIENT_CHECKPOINTING"
        --dataloader_num_workers "$NUM_WORKERS"
        --lazy_preprocess True
        --report_to "$REPORT_TO"
        --seed "$SEED"
        "$@"
    )
    if [[ "${DRY_RUN:-0}" == 1 ]]; then
        printf '%q ' "${command[@]}"
        echo
        exit 0
    fi
    if [[ "$NODE_RANK" == 0 ]]; then
        "$PYTHON" -m regap_patch.study.environment --output_path "$OUTPUT_DIR" -- "${command[@]}"
        [[ "$ZERO" == 0 ]] || cp "$config" "$OUTPUT_DIR/deepspeed.json"
    fi
    exec "${command[@]}"
}
