"""Runs the training command, and stands still where STALL_AT says, so that a parent can kill it there.

STALL_AT is `step:N` (in the middle of step N) or `save:N` (while the checkpoint of step N is half written).
"""

import os
import time

from llava.train.llava_trainer import LLaVATrainer
from llava.train.train import train

PLACES = {"step": ("training_step", 1), "save": ("_save_rng_state", 0)}


def stand_still_in(method: str, when: int) -> None:
    original = getattr(LLaVATrainer, method)

    def stalling(self, *args, **kwargs):
        if self.state.global_step == when:
            print("STALLED", flush=True)
            time.sleep(600)
        return original(self, *args, **kwargs)

    setattr(LLaVATrainer, method, stalling)


if __name__ == "__main__":
    if os.environ.get("STALL_AT"):
        place, number = os.environ["STALL_AT"].split(":")
        method, steps_behind = PLACES[place]
        stand_still_in(method, int(number) - steps_behind)
    train()
