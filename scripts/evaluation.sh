# What the scripts in v1_5/eval/ share: ask a model a benchmark's questions on all GPUs at once, and help. Those set
# the knobs, all of them, and source this file; it is not run by itself.

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

show_help() {  # the caller's header, then its knobs: NAME (default): comment
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    sed -nE 's/^([A-Z0-9_]+)="\$\{[A-Z0-9_]+:-(.*)\}"( *# (.*))?$/  \1 (\2): \4/p' "$0" | sed 's/: $//'
}

show() {
    printf '%q ' "$@"
    echo
}

step() {  # run a command, or only print it
    if [[ "${DRY_RUN:-0}" == 1 ]]; then show "$@"; else "$@"; fi
}

ask() {  # ask MODULE ANSWERS [flags]: one process for each GPU of CUDA_VISIBLE_DEVICES; ANSWERS is whole at the end
    local module="$1" answers="$2" gpus=() parts=() index process failed=0
    shift 2
    IFS=',' read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-0}"
    ((${#gpus[@]})) || gpus=("")  # none
    local command=("$PYTHON" -m "llava.eval.$module" --model-path "$MODEL" --conv-mode "$CONV_MODE"
        --temperature "$TEMPERATURE" --batch-size "$BATCH_SIZE")
    [[ -z "$MODEL_BASE" ]] || command+=(--model-base "$MODEL_BASE")
    [[ -z "$DEVICE" ]] || command+=(--device "$DEVICE")
    command+=("$@")
    local chunks="${NUM_CHUNKS:-${#gpus[@]}}"
    if [[ "$chunks" == 1 ]]; then
        step "${command[@]}" --answers-file "$answers"
        return
    fi
    local folder="${answers%.jsonl}"
    folder="${folder%/merge}"
    running=()
    trap 'kill "${running[@]}" 2>/dev/null' EXIT  # a process in the background does not hear Ctrl-C
    for ((index = 0; index < chunks; index++)); do
        parts+=("$folder/${chunks}_$index.jsonl")
        local part=(env "CUDA_VISIBLE_DEVICES=${gpus[index % ${#gpus[@]}]}" "${command[@]}"
            --answers-file "${parts[index]}" --num-chunks "$chunks" --chunk-idx "$index")
        if [[ "${DRY_RUN:-0}" == 1 ]]; then
            show "${part[@]}"
        else
            "${part[@]}" &
            running+=($!)
        fi
    done
    for process in ${running[@]+"${running[@]}"}; do
        wait "$process" || failed=1
    done
    trap - EXIT
    if ((failed)); then
        echo "A part of $answers failed: mend what its message says and run the same line again." >&2
        exit 1
    fi
    step "$PYTHON" -m llava.eval.merge_answers "${parts[@]}" --output-file "$answers"
}

case "${1:-}" in --help | -h) show_help; exit 0 ;; esac
