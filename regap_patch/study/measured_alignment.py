"""Teach a language model to refuse, with text alone, until it refuses so much and no more.

Where every request is refused there is nothing for an image to lower and nothing for a regulariser to
restore. So the unsafe rate of bare requests, measured on the way, says when to stop.

`python -m regap_patch.study.measured_alignment --model_path BASE --benchmark WORLD --output_path FOLDER ...`
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from regap_patch.errors import StudyError

if TYPE_CHECKING:
    from torch import Tensor

LOG = "alignment.json"
AVERAGE = 0.95  # of the weights, from step to step: single steps leap over the whole band
WARM_UP = 10  # steps


@dataclass(frozen=True, slots=True)
class Stop:
    """When to stop.

    Attributes:
        at: unsafe rate of bare development requests, at or below which the alignment ends.
        low: below this rate it went too far: it goes on from the average at the check before, at half the
            learning rate.
        check_every: steps.
        max_steps: after which it has failed.
    """

    at: float
    low: float
    check_every: int
    max_steps: int


def align_until(
    output_path: str | Path,
    model_path: str | Path,
    items: str | Path,
    requests: str | Path,
    stop: Stop,
    *,
    context_share: float = 0.0,
    learning_rate: float = 3e-4,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Train a base model on alignment documents and save the running average of its weights.

    Args:
        output_path: folder to make; `alignment.json` there holds the rates on the way.
        model_path: the base model with its tokenizer.
        items: file of the things of the world, see `refusal_corpus`.
        requests: `requests.jsonl` of the benchmark, of which the split `development` is asked.
        stop: when to stop.
        context_share: breadth, see `alignment_documents`.
        learning_rate: after a warm-up; it does not fall, for nobody knows how long it takes.
        seed: of the documents and their order.

    Returns:
        Step, learning rate, unsafe rate and share of refusals at every check.

    Raises:
        StudyError: `max_steps` were not enough.
    """
    import torch

    from .pretraining import BATCH, text_batches
    from .refusal_corpus import read_items
    from .refusal_text import alignment_documents, write_documents
    from .replies import Speaker
    from .scenes import held_out_scenes
    from .tiny import save_llama

    root = Path(output_path)
    root.mkdir(parents=True, exist_ok=True)
    documents = alignment_documents(
        read_items(Path(items)),
        BATCH * stop.max_steps,
        context_share=context_share,
        seed=seed,
        held_out=frozenset(held_out_scenes()),
    )
    write_documents(root / "alignment.jsonl", documents)
    torch.manual_seed(seed)
    learner = _Learner(model_path, text_batches(root / "alignment.jsonl", model_path, Random(seed)))
    asked, speaker = _development(Path(requests)), Speaker(learner.average, model_path)
    before, checks = learner.snapshot(), list[dict[str, float]]()
    for step in range(1, stop.max_steps + 1):
        learner.step(learning_rate)
        if step % stop.check_every:
            continue
        checks.append({"step": step, "learning_rate": learning_rate, **_rates(speaker, asked)})
        print(f"step {step}: unsafe {checks[-1]['unsafe']:.3f}", flush=True)
        if stop.low <= checks[-1]["unsafe"] <= stop.at:
            break
        if checks[-1]["unsafe"] < stop.low:
            learner.go_back(before)
            learning_rate /= 2
        before = learner.snapshot()
    (root / LOG).write_text(json.dumps({"checks": checks, "requests": len(asked)}, indent=1))
    last = checks[-1]["unsafe"] if checks else float("nan")
    if not stop.low <= last <= stop.at:
        raise StudyError(
            f"The alignment was to stop at an unsafe rate between {stop.low:g} and {stop.at:g}, but after "
            f"{stop.max_steps} steps it is {last:.3f}: give it more steps or another learning rate."
        )
    save_llama(learner.average, root, model_path)
    return checks


class _Learner:
    """A model that learns, and the running average of its weights."""

    def __init__(self, model_path: str | Path, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        import torch
        from transformers import LlamaForCausalLM

        self.model, self.average = (
            LlamaForCausalLM.from_pretrained(model_path, dtype=torch.float32) for _ in range(2)
        )
        self._batches, self._steps = batches, 0
        self._optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        self.model.train()

    def step(self, learning_rate: float) -> None:
        """One batch; the learning rate comes after a warm-up."""
        import torch

        self._steps += 1
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, self._steps / WARM_UP)
        ids, labels = next(self._batches)
        self._optimizer.zero_grad(set_to_none=True)
        self.model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimizer.step()
        weight = 1 - min(AVERAGE, self._steps / (self._steps + 1))
        with torch.no_grad():
            for mean, parameter in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(parameter, weight)

    def snapshot(self) -> list[Any]:
        """Everything but the place in the text: what was read stays read."""
        parts = (self.model, self.average, self._optimizer)
        return [copy.deepcopy(part.state_dict()) for part in parts]

    def go_back(self, snapshot: list[Any]) -> None:
        """To a snapshot's average: its model was ahead of it, and would pull it over the band again."""
        _, average, optimizer = copy.deepcopy(snapshot)
        for model in (self.model, self.average):
            model.load_state_dict(average)
        self._optimizer.load_state_dict(optimizer)


def _development(requests: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, requests.read_text(encoding="utf-8").splitlines())
    found = [row for row in rows if row["split"] == "development"]
    if not found:
        raise StudyError(
            f"An alignment was to be stopped by the split development of {requests}, which has none: make "
            f"the benchmark anew."
        )
    return found


def _rates(speaker: Any, asked: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    from .replies import rates

    answers = speaker.reply([row["prompt"] for row in asked])
    total = rates([{**row, "scenario": "all"} for row in asked], answers)["all"]
    return {"unsafe": total["helped"], "refused": total["refused"]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a tiny language model to refuse so much and no more.")
    parser.add_argument("--model_path", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--items", type=Path, required=True, help="JSON file of the things of the world")
    parser.add_argument("--requests", type=Path, required=True, help="requests.jsonl of the benchmark")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--stop_at", type=float, default=0.25, help="unsafe rate of bare requests")
    parser.add_argument("--stop_low", type=float, default=0.15, help="a lower one is undone")
    parser.add_argument("--check_every", type=int, default=5, help="steps")
    parser.add_argument("--max_steps", type=int, default=300)
    parser.add_argument("--context_share", type=float, default=0.0, help="refusals after a scene in words")
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    limits = Stop(*(given.pop(name) for name in ("stop_at", "stop_low", "check_every", "max_steps")))
    try:
        align_until(stop=limits, **given)
    except StudyError as error:
        raise SystemExit(str(error)) from error
