"""`python -m regap_patch.run [--regap_...] (SCRIPT.py | -m MODULE) ...`: a training script with ReGap on."""

from __future__ import annotations

from regap_patch.train.launch import as_command

if __name__ == "__main__":
    as_command()
