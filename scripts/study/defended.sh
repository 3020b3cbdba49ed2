#!/usr/bin/env bash
# One checkpoint of the study behind one defence stack: answers, verdicts, and a trace of what the defences did.
#
#   MODEL=STAGE2 DATA=BENCHMARK DEFENSE=adashield_s OUTPUT_DIR=RUN scripts/study/defended.sh [more flags of `regap eval run`]
#
# Every upper-case name can be set from outside. Interrupted? Run the same line again: it goes on where it stopped.
set -euo pipefail

MODEL="${MODEL:?a checkpoint}"
MODEL_BASE="${MODEL_BASE:-}"            # the language model under an adapter
DATA="${DATA:?a folder of the world that can refuse}"
DEFENSE="${DEFENSE:-}"                  # names with + between; none for the model alone
DEFENSE_ARGS="${DEFENSE_ARGS:-}"        # NAME.SETTING=value, commas between
IMAGE_MODE="${IMAGE_MODE:-none,words,blank,real}"
BATCH_SIZE="${BATCH_SIZE:-64}"
MAX_NEW_TOKENS="${MAX_NEW_TOKENS:-24}"
OUTPUT_DIR="${OUTPUT_DIR:?a folder for the run}"
PYTHON="${PYTHON:-python}"

arguments="pretrained=$MODEL"
[[ -z "$MODEL_BASE" ]] || arguments+=",base=$MODEL_BASE"
flags=(--model llava --model_args "$arguments" --tasks "world=$DATA" --image_mode "$IMAGE_MODE" --batch_size "$BATCH_SIZE"
    --gen_kwargs "max_new_tokens=$MAX_NEW_TOKENS" --device cpu --offline --output_path "$OUTPUT_DIR")
# Of models that answer in milliseconds on a shared machine a ratio of times says little; generations are counted.
[[ -z "$DEFENSE" ]] || flags+=(--defense "$DEFENSE" --no_latency)
[[ -z "$DEFENSE_ARGS" ]] || flags+=(--defense_args "$DEFENSE_ARGS")

"$PYTHON" -m regap_patch.cli eval run "${flags[@]}" "$@"
"$PYTHON" -m regap_patch.cli eval judge "$OUTPUT_DIR" --judges world,scorer --device cpu --offline
