#!/usr/bin/env bash
# ReGap in front of a training script that knows nothing of it: the same script with the regulariser off and on, and
# both runs in one figure.
#
#   playground/examples/launcher.sh [OUTPUT_FOLDER]
set -euo pipefail

PYTHON="${PYTHON:-python}"
RUNS="${1:-playground/runs/launcher}"
SCRIPT="$(dirname "$0")/training_script.py"

# Before: python training_script.py FOLDER. All that changes is what stands in front of the script.
"$PYTHON" -m regap_patch.run --regap_loss off "$SCRIPT" "$RUNS/off"
"$PYTHON" -m regap_patch.run "$SCRIPT" "$RUNS/on"

# Under torchrun and deepspeed it is the same line:
#   torchrun --nproc_per_node 8 -m regap_patch.run training_script.py FOLDER
#   deepspeed --module regap_patch.run training_script.py FOLDER

"$PYTHON" -m regap_patch.cli plot "$RUNS/off" "$RUNS/on" --output_path "$RUNS/regap.png"
