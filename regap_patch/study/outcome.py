"""What a quickstart showed: numbers from the files that its steps left, as a table and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regap_patch.report.plots import plot_runs
from regap_patch.report.runs import RunLog, read_run

from .answers import Score, best_constant, read_rows, score, score_by_kind

ARMS = ("off", "on")
TAIL = 0.1  # a trained value is the mean over this last part of the steps


def trained(run: RunLog, key: str) -> float:
    """Mean of a logged value over the last tenth of the steps."""
    values = [value for _, value in run.series[key]]
    tail = values[-max(1, round(len(values) * TAIL)) :]
    return sum(tail) / len(tail)


def _stage(folder: Path) -> dict[str, float]:
    run = read_run(folder)
    row = {key: trained(run, key) for key in ("loss_lm", "centroid_l2", "pairwise_sq")}
    ratio = trained(run, "image_norm") / trained(run, "text_norm")
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
    """Stage 1, step by step, with the regulariser off and on.

    Raises:
        ReportError: matplotlib is not installed.
    """
    runs = [replace(read_run(root / f"llava-pretrain-{arm}"), name=f"ReGap {arm}") for arm in ARMS]
    plot_runs(runs, path)
