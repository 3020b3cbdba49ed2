"""Runs inside upstream's environment: its own training module, with and without our launcher.

    python launched_runs.py JOBS.json

JOBS.json is a list of `{"ours": [flags of the launcher] or null, "argv": [flags of the training]}`. Nothing
of upstream is replaced; DeepSpeed, which it imports to save a projector, is stood in for. The folder that
PYTHONPATH names must hold `regap_patch` and no `llava`.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from pathlib import Path

import torch
from worker import stand_in_for_deepspeed  # this script's folder is on the path


def run(ours: list[str] | None, argv: list[str]) -> None:
    if ours is None:
        sys.argv = ["train", *argv]
        runpy.run_module("llava.train.train", run_name="__main__", alter_sys=True)
        return
    from regap_patch.train.launch import main

    main([*ours, "-m", "llava.train.train", *argv])


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore", "'llava.train.train' found in sys.modules", RuntimeWarning)
    stand_in_for_deepspeed()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        run(**job)
