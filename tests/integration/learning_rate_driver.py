"""Trains under one DeepSpeed configuration after the other and writes down what the optimizer was given.

    torchrun --nproc_per_node 1 tests/integration/learning_rate_driver.py JOBS.json SEEN.json

JOBS.json maps a name to the flags of a run. SEEN.json gets, by name, the class of the optimizer that takes
the steps, and the learning rate and the weight decay of each of its groups at the first step.
"""

import json
import sys
from pathlib import Path

from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from llava.train.processes import leave_group
from llava.train.train import train

EVERYTHING = {}


class NoteGroups(TrainerCallback):
    """The trainer wraps the optimizer, and DeepSpeed wraps it again: the innermost one counts."""

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        groups = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        name = Path(args.output_dir).name
        EVERYTHING.setdefault(name, {"optimizer": type(optimizer).__name__, "groups": groups})


if __name__ == "__main__":
    DEFAULT_CALLBACKS.append(NoteGroups)
    for argv in json.loads(Path(sys.argv[1]).read_text()).values():
        train(argv=argv)
    Path(sys.argv[2]).write_text(json.dumps(EVERYTHING))
    leave_group()
