# What the scripts in v1_5/eval/ share: their knobs, help, and how a model is asked on all GPUs at once. Those set the
# knobs of their own and source this file; it is not run by itself.

MODEL="${MODEL:-liuhaotian/llava-v1.5-13b}"
MODEL_BASE="${MODEL_BASE:-}"           # language model under a projector or a LoRA adapter
NAME="${NAME:-$(basename "$MODEL")}"   # of the files of answers
CONV_MODE="${CONV_MODE:-vicuna_v1}"
TEMPERATURE="${TEMPERATURE:-0}"
BATCH_SIZE="${BATCH_SIZE:-8}"          # questions at once; answers do not depend on it
NUM_CHUNKS="${NUM_CHUNKS:-}"           # processes; by default one for each GPU of CUDA_VISIBLE_DEVICES
DEVICE="${DEVICE:-}"                   # by default cuda where there is one, else cpu
PYTHON="${PYTHON:-python}"

REPOSITORY="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

show_help() {  # the caller's header, then its knobs and ours: NAME (default): comment
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    cat "$0" "$REPOSITORY/scripts/evaluation.sh" |
        sed -nE 's/^([A-Z0-9_]+)="\$\{[A-Z0-9_]+:-(.*)\}"( *# (.*))?$/  \1 (\2): \4/p' | sed 's/: $//'
}

show() {
    printf '%q ' "$@"
    echo
}

step() {  # run a command, or only print it
    if [[ "${DRY_RUN:-0}" == 1 ]]; then show "$@"; else "$@"; fi
}

list_gpus() {  # into `gpus`: those of CUDA_VISIBLE_DEVICES, by default the first; one nameless place without any
    IFS=',' read -ra gpus <<<"${CUDA_VISIBLE_DEVICES-0}"
    ((${#gpus[@]})) || gpus=("")
}

on_all_gpus() {  # on_all_gpus CHUNKS FLAGS WHAT COMMAND...: CHUNKS processes at once; `FLAGS INDEX` sets `added` for each
    local chunks="$1" flags="$2" what="$3" gpus=() added=() index process failed=0
    shift 3
    list_gpus
    running=()
    trap 'kill "${running[@]}" 2>/dev/null' EXIT  # a process in the background does not hear Ctrl-C
    for ((index = 0; index < chunks; index++)); do
        "$flags" "$index"
        local part=(env "CUDA_VISIBLE_DEVICES=${gpus[index % ${#gpus[@]}]}" "$@" "${added[@]}")
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
        echo "A part of $what failed: mend what its message says and run the same line again." >&2
        exit 1
    fi
}

ask() {  # ask MODULE ANSWERS [flags]: one process for each GPU of CUDA_VISIBLE_DEVICES; ANSWERS is whole at the end
    local module="$1" answers="$2" gpus=() parts=() index
    shift 2
    list_gpus
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
    for ((index = 0; index < chunks; index++)); do
        parts+=("$folder/${chunks}_$index.jsonl")
    done
    chunk_flags() { added=(--answers-file "${parts[$1]}" --num-chunks "$chunks" --chunk-idx "$1"); }
    on_all_gpus "$chunks" chunk_flags "$answers" "${command[@]}"
    step "$PYTHON" -m llava.eval.merge_answers "${parts[@]}" --output-file "$answers"
}

case "${1:-}" in --help | -h) show_help; exit 0 ;; esac
