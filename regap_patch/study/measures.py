"""Everything that a study asks of one checkpoint, in one process: answers, verdicts, gap, MIR, caption loss.

`python -m regap_patch.study.measures --model_path LLAVA --base LLM --benchmark WORLD --output_path FOLDER`

The folder holds `run/` (a run of `regap eval`, judged), `gap.json`, `mir.json` (as `regap gap` and
`regap mir` write them) and `captions.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .refusal_benchmark import CAPTIONS

if TYPE_CHECKING:
    from regap_patch.measure import PairSet

IMAGE_MODES = ("none", "words", "blank", "black", "noise", "irrelevant", "real")
JUDGES = ("world", "scorer")


@dataclass(frozen=True, slots=True)
class Measures:
    """What is asked.

    Attributes:
        image_modes: what stands in the picture's place.
        batch: answers at a time.
        max_new_tokens: of an answer.
        pairs: of pictures and texts, for gap and MIR.
        captions: of pictures, for the caption loss.
    """

    image_modes: tuple[str, ...] = IMAGE_MODES
    batch: int = 64
    max_new_tokens: int = 24
    pairs: int = 96
    captions: int = 96


def measure(
    output_path: str | Path,
    model_path: str | Path,
    base: str | Path | None,
    benchmark: str | Path,
    measures: Measures | None = None,
) -> None:
    """Measure one checkpoint; a second call goes on where the first was interrupted.

    Args:
        output_path: folder to make.
        model_path: a LLaVA: whole, or a projector or an adapter.
        base: the language model under a projector or an adapter; None under a whole LLaVA.
        benchmark: folder of the world that can refuse.
        measures: what is asked.
    """
    root, measures = Path(output_path), measures or Measures()
    model, under = str(model_path), None if base is None else str(base)
    _answers(root / "run", model, under, Path(benchmark), measures)
    _gaps(root, model, under, Path(benchmark), measures.pairs)
    captions = _pairs(Path(benchmark), measures.captions, "captions")
    (root / "captions.json").write_text(json.dumps(_caption_loss(model, under, captions), indent=1))


def _answers(run: Path, model: str, base: str | None, benchmark: Path, measures: Measures) -> None:
    """Ask and judge, as `regap eval run` and `judge` do."""
    from regap_patch.judges import judge_run, make_judge, preset
    from regap_patch.judges.make import Resources
    from regap_patch.judges.run import about_of
    from regap_patch.safety.benchmarks import adapter_of
    from regap_patch.safety.benchmarks.scoring import score_text
    from regap_patch.safety.manifest import Settings
    from regap_patch.safety.run import run_evaluation
    from regap_patch.safety.target import Decoding
    from regap_patch.safety.targets.llava import LlavaTarget
    from regap_patch.safety.targets.local import LocalOptions
    from regap_patch.safety.tasks import Task

    target = LlavaTarget(LocalOptions(model, base=base, device="cpu"))
    task = Task(adapter_of("world"), benchmark, measures.image_modes)  # type: ignore[arg-type]
    settings = Settings(Decoding(max_new_tokens=measures.max_new_tokens), measures.batch)
    run_evaluation(target, [task], run, settings, started={"model": model}, progress=_say)
    target.close()
    for name in JUDGES:
        judge_run(run, make_judge(name, Resources(score=score_text)), about=about_of(preset(name)))


def _say(what: str, done: int, of: int) -> None:
    """A line that the runner's progress bar reads."""
    if what == "answers":
        print(f"answers {done}/{of} [", flush=True)


def _pairs(benchmark: Path, count: int, pairing: str) -> PairSet:
    """Held-out pictures, each with its own caption or with another's."""
    from regap_patch.measure import choose_pairs

    captions = benchmark / CAPTIONS
    images = benchmark if pairing == "captions" else captions
    return choose_pairs(images, captions, count=count, pairing=pairing, image_folder=benchmark)


def _gaps(root: Path, model: str, base: str | None, benchmark: Path, count: int) -> None:
    from regap_patch.measure.mir import MirSettings
    from regap_patch.measure.runs import LoadOptions, gap_of_checkpoints, mir_of_checkpoints

    options = LoadOptions(base=base)
    own, others = (_pairs(benchmark, count, pairing) for pairing in ("captions", "unrelated"))
    gap_of_checkpoints([model], own, root / "gap.json", options)
    mir_of_checkpoints([model], others, root / "mir.json", options, MirSettings())


def _caption_loss(model: str, base: str | None, pairs: PairSet) -> dict[str, Any]:
    """Loss of the captions of held-out pictures, in nats per token, each behind its picture as in stage 1."""
    import torch

    from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
    from regap_patch.measure import load_checkpoint
    from regap_patch.measure.checkpoints import PreparedPairs

    checkpoint = load_checkpoint(model, base=base, device="cpu", dtype="float32")
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for pair, given in zip(
            pairs.pairs, PreparedPairs(checkpoint.prompter, pairs.pairs, bare=True), strict=True
        ):
            ids = given["input_ids"]
            labels = ids.masked_fill(ids == IMAGE_TOKEN_INDEX, IGNORE_INDEX)
            labels[:, 0] = IGNORE_INDEX
            tokens = int((labels != IGNORE_INDEX).sum())
            loss = float(checkpoint.model(**given, labels=labels, use_cache=False).loss)
            rows.append({"pair": pair.name, "tokens": tokens, "loss": loss})
    return {"loss": _mean(rows), "tokens": sum(row["tokens"] for row in rows), "pairs": rows}


def _mean(rows: Sequence[dict[str, Any]]) -> float:
    total = sum(row["loss"] * row["tokens"] for row in rows)
    return float(total / sum(row["tokens"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Ask one checkpoint everything that a study wants to know.")
    parser.add_argument("--model_path", type=Path, required=True, help="folder of a LLaVA")
    parser.add_argument("--base", type=Path, help="language model under a projector or an adapter")
    parser.add_argument("--benchmark", type=Path, required=True, help="folder of a world that can refuse")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to make")
    parser.add_argument("--image_modes", nargs="+", default=IMAGE_MODES)
    for name, default, words in (
        ("batch", 64, "answers at a time"),
        ("max_new_tokens", 24, "of an answer"),
        ("pairs", 96, "of pictures and texts, for gap and MIR"),
        ("captions", 96, "of pictures, for the caption loss"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=words)
    given = vars(parser.parse_args())
    asked = Measures(
        image_modes=tuple(given.pop("image_modes")),
        **{name: given.pop(name) for name in ("batch", "max_new_tokens", "pairs", "captions")},
    )
    from regap_patch.errors import ReGapError

    try:
        measure(measures=asked, **given)
    except ReGapError as error:
        sys.exit(str(error))
