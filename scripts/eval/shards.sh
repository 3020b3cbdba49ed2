# What scripts/eval/{safety,utility}.sh and their twins in scripts/mini/eval/ share: a run of `regap eval` on all GPUs,
# judged, scored and reported. Those set the knobs and source this file; it is not run by itself.

source "$(dirname "${BASH_SOURCE[0]}")/../evaluation.sh"

regap_eval() {
    step "$PYTHON" -m regap_patch.cli eval "$@"
}

shard_flags() { added=(--num_shards "$chunks" --shard "$1"); }

evaluate() {  # evaluate [flags of `regap eval run`]: OUTPUT_DIR/NAME has answers, verdicts, metrics.json and report/
    local run="$OUTPUT_DIR/$NAME" gpus=() judging=() incomplete=0
    list_gpus
    read -ra judging <<<"$JUDGE_FLAGS"
    local chunks="${NUM_CHUNKS:-${#gpus[@]}}" arguments="pretrained=$MODEL"
    [[ -z "$MODEL_BASE" ]] || arguments+=",base=$MODEL_BASE"
    local flags=(--model "$KIND" --model_args "$arguments" --data_root "$DATA" --batch_size "$BATCH_SIZE"
        --seed "$SEED" --gen_kwargs "max_new_tokens=$MAX_NEW_TOKENS,temperature=$TEMPERATURE" --output_path "$run")
    [[ -z "$CONV_MODE" || "$KIND" != llava ]] || flags+=(--conv_mode "$CONV_MODE")
    [[ -z "$PROFILE" ]] || flags+=(--profile "$PROFILE")
    [[ -z "$TASKS" ]] || flags+=(--tasks "$TASKS")
    [[ -z "$IMAGE_MODE" ]] || flags+=(--image_mode "$IMAGE_MODE")
    [[ -z "$LIMIT" ]] || flags+=(--limit "$LIMIT")
    [[ -z "$DEVICE" ]] || flags+=(--device "$DEVICE")
    flags+=("$@")
    if [[ "$chunks" != 1 ]]; then
        on_all_gpus "$chunks" shard_flags "$run" "$PYTHON" -m regap_patch.cli eval run "${flags[@]}"
    fi
    regap_eval run "${flags[@]}"  # all of it, or the look whether the shards left anything out
    regap_eval judge "$run" --judges "$JUDGES" ${judging[@]+"${judging[@]}"} || incomplete=$?
    regap_eval score "$run" || incomplete=$?
    regap_eval report "$run"
    if ((incomplete)); then
        echo "$run is not complete: see what is said above, mend it, and run the same line again." >&2
        exit "$incomplete"
    fi
}
