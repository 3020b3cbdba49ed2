"""What a quickstart showed: numbers from the files that its steps left, as a table and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .answers import Score, best_constant, read_rows, score, score_by_kind

ARMS = ("off", "on")
TAIL = 0.1  # a trained value is the mean over this last part of the steps


def history(run: Path, key: str) -> list[tuple[int, float]]:
    """(step, value) of everything that a training run logged under `key`."""
    state = json.loads((run / "trainer_state.json").read_text())
    return [(row["step"], row[key]) for row in state["log_history"] if key in row]


def trained(run: Path, key: str) -> float:
    """Mean of a logged value over the last tenth of the steps."""
    values = [value for _, value in history(run, key)]
    tail = values[-max(1, round(len(values) * TAIL)) :]
    return sum(tail) / len(tail)


def _stage(run: Path) -> dict[str, float]:
    row = {key: trained(run, f"regap/{key}") for key in ("loss_lm", "centroid_l2", "pairwise_sq")}
    ratio = trained(run, "regap/image_norm") / trained(run, "regap/text_norm")
    return {**row, "norm_ratio": ratio}


def collect(root: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """Everything that the table shows, by arm, ready for JSON."""
    results: dict[str, Any] = {"seconds": seconds, "arms": {}}
    for arm in ARMS:
        answers = read_rows(root / f"answers-{arm}.jsonl")
        results["arms"][arm] = {
            "pretrain": _stage(root / f"llava-pretrain-{arm}"),
            "finetune": _stage(root / f"llava-finetune-{arm}"),
            "vqa": score(answers)._asdict(),
            "vqa_by_kind": {kind: found._asdict() for kind, found in score_by_kind(answers).items()},
            "checkpoints": {stage: str(root / f"llava-{stage}-{arm}") for stage in ("pretrain", "finetune")},
        }
        results["best_constant"] = best_constant(answers)._asdict()
    return results


def _row(label: str, cells: Sequence[str]) -> str:
    return f"{label:<44}" + "".join(f"{cell:>24}" for cell in cells)


def _numbers(label: str, results: dict[str, Any], stage: str, key: str) -> str:
    return _row(label, [f"{results['arms'][arm][stage][key]:.3f}" for arm in ARMS])


def _share(values: dict[str, float]) -> str:
    found = Score(**values)  # type: ignore[arg-type]
    return f"{found.share:.3f} ({found.right}/{found.total})"


def table(results: dict[str, Any]) -> str:
    """The results as text, one column an arm."""
    seconds = results["seconds"]
    rule = "-" * 92
    lines = [_row("", [f"ReGap {arm}" for arm in ARMS]), rule]
    for stage, title in (("pretrain", "stage 1"), ("finetune", "stage 2")):
        lines += [
            _numbers(f"{title}: LM loss, nats per token", results, stage, "loss_lm"),
            _numbers(f"{title}: centroid gap |mean v - mean t|", results, stage, "centroid_l2"),
            _numbers(f"{title}: pairwise gap, mean |v - t|^2", results, stage, "pairwise_sq"),
            _numbers(f"{title}: norm ratio, image / text", results, stage, "norm_ratio"),
        ]
    vqa = [results["arms"][arm]["vqa"] for arm in ARMS]
    lines += [
        _row("VQA accuracy, held-out scenes", [_share(values) for values in vqa]),
        _row("  95 % interval", [f"{values['low']:.3f} to {values['high']:.3f}" for values in vqa]),
        _row("  best constant answer per kind of question", [_share(results["best_constant"])] * 2),
    ]
    for step in ("pretrain", "finetune", "answers"):
        lines.append(_row(f"seconds: {step}", [f"{seconds[f'{step} {arm}']:.0f}" for arm in ARMS]))
    shared = ", ".join(f"{name} {took:.0f}" for name, took in seconds.items() if name.split()[-1] not in ARMS)
    return "\n".join([*lines, rule, f"seconds before both arms: {shared}"])


def plot(root: Path, path: Path) -> None:
    """Stage 1, step by step, with the regulariser off and on: caption loss, gap, norm ratio.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = ("loss_lm", "centroid_l2", "image_norm", "text_norm")
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for arm, colour in zip(ARMS, ("tab:grey", "tab:blue"), strict=True):
        run = root / f"llava-pretrain-{arm}"
        series = {key: history(run, f"regap/{key}") for key in keys}
        norms = zip(series["image_norm"], series["text_norm"], strict=True)
        ratio = [(step, image / text) for (step, image), (_, text) in norms]
        for axis, points in zip(axes, (series["loss_lm"], series["centroid_l2"], ratio), strict=True):
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, label=f"ReGap {arm}")
    axes[2].axhline(1.0, color="black", linewidth=0.6, linestyle=":")
    titles = ("caption loss, nats per token", "centroid gap |mean v - mean t|", "norm ratio, image / text")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="step of stage 1")
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
