"""`python -m` for a module that trains, but it stands still at STALL_AT, so that a parent can kill it.

    STALL_AT=step:5 python stalling_run.py MODULE <its flags>

STALL_AT is `step:N` (in the middle of step N) or `save:N` (while the checkpoint of step N is half written).
"""

import os
import runpy
import sys
import time

from transformers import Trainer

PLACES = {"step": ("training_step", 1), "save": ("_save_rng_state", 0)}


def stand_still_in(method: str, when: int) -> None:
    original = getattr(Trainer, method)

    def stalling(self, *args, **kwargs):
        if self.state.global_step == when:
            print("STALLED", flush=True)
            time.sleep(600)
        return original(self, *args, **kwargs)

    setattr(Trainer, method, stalling)


if __name__ == "__main__":
    if os.environ.get("STALL_AT"):
        place, number = os.environ["STALL_AT"].split(":")
        method, steps_behind = PLACES[place]
        stand_still_in(method, int(number) - steps_behind)
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
