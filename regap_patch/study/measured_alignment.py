"""Teach a language model to refuse, with text alone, until it refuses so much and no more.

Where every request is refused there is nothing for an image to lower and nothing for a regulariser to
restore. So the unsafe rate of bare requests, measured on the way, says when to stop.

`python -m regap_patch.study.measured_alignment --model_path BASE --benchmark WORLD --output_path FOLDER ...`
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from regap_patch.errors import StudyError

if TYPE_CHECKING:
    from torch import nn

LOG = "alignment.json"
AVERAGE = 0.95  # of the weights, from step to step: single steps leap over the whole band
WARM_UP = 10  # steps


@dataclass(frozen=True, slots=True)
class Stop:
    """When to stop.

    Attributes:
        at: unsafe rate of bare development requests, at or below which the alignment ends.
        low: below this rate it went too far.
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
        Step, unsafe rate and share of refusals at every check.

    Raises:
        StudyError: `max_steps` were not enough, or one check was above the band and the next below it.
    """
    import torch
    from transformers import LlamaForCausalLM

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
    model, average = (LlamaForCausalLM.from_pretrained(model_path, dtype=torch.float32) for _ in range(2))
    asked, speaker = _development(Path(requests)), Speaker(average, model_path)
    batches = text_batches(root / "alignment.jsonl", model_path, Random(seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    model.train()
    checks: list[dict[str, float]] = []
    for step in range(1, stop.max_steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, step / WARM_UP)
        ids, labels = next(batches)
        optimizer.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _follow(average, model, step)
        if step % stop.check_every == 0:
            checks.append({"step": step, **_rates(speaker, asked)})
            print(f"step {step}: unsafe {checks[-1]['unsafe']:.3f}", flush=True)
            if checks[-1]["unsafe"] <= stop.at:
                break
    (root / LOG).write_text(json.dumps({"checks": checks, "requests": len(asked)}, indent=1))
    _in_band(checks, stop)
    save_llama(average, root, model_path)
    return checks


def _development(requests: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, requests.read_text(encoding="utf-8").splitlines())
    found = [row for row in rows if row["split"] == "development"]
    if not found:
        raise StudyError(
            f"An alignment was to be stopped by the split development of {requests}, which has none: make "
            f"the benchmark anew."
        )
    return found


def _follow(average: nn.Module, model: nn.Module, step: int) -> None:
    import torch

    weight = 1 - min(AVERAGE, step / (step + 1))
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(parameter, weight)


def _rates(speaker: Any, asked: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    from .replies import rates

    answers = speaker.reply([row["prompt"] for row in asked])
    total = rates([{**row, "scenario": "all"} for row in asked], answers)["all"]
    return {"unsafe": total["helped"], "refused": total["refused"]}


def _in_band(checks: Sequence[Mapping[str, float]], stop: Stop) -> None:
    last = checks[-1]["unsafe"]
    if last > stop.at:
        raise StudyError(
            f"The alignment was to stop at an unsafe rate of {stop.at:g}, but after {stop.max_steps} steps "
            f"it is {last:.3f}: give it more steps or a higher learning rate."
        )
    if last < stop.low:
        raise StudyError(
            f"The alignment was to stop at an unsafe rate between {stop.low:g} and {stop.at:g}, but leapt to "
            f"{last:.3f}: check more often or lower the learning rate."
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Teach a tiny language model to refuse so much and no more.")
    parser.add_argument("--model_path", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--items", type=Path, required=True, help="JSON file of the things of the world")
    parser.add_argument("--requests", type=Path, required=True, help="requests.jsonl of the benchmark")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--stop_at", type=float, default=0.25, help="unsafe rate of bare requests")
    parser.add_argument("--stop_low", type=float, default=0.15, help="a lower one is an error")
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
