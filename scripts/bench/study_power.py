"""What the study's analysis finds in tables with a planted truth, and what it finds where nothing is.

For claim C: how often it is supported, how often the interval holds the truth, and the share of each verdict,
at several true effects. "expected" is the power of the t test at the deviation that the tables show. A row
of no effect is the false-positive rate, which is to stay at 2.5 %. Then the same where an image adds nothing,
or no more than words do, and whole studies for claims A and B and for utility.

A gate that opens by luck does so because `off` came out high with the image, and then the regulariser seems
to help. So where nothing is, "supported" stays at 2.5 % of all studies, but not of those that pass the gate.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from regap_patch.study.planted import Planted, planted_primary, planted_protocol, planted_study
from regap_patch.study.student import power_of
from regap_patch.study.trial import analyse
from regap_patch.study.trial_cells import Trial
from regap_patch.study.trial_primary import NOT_TESTABLE, claim_c, gate

EFFECTS = (0.0, -0.03, -0.05, -0.10)
VERDICTS = ("supported", "supported, smaller than .05", "not supported", "undecided", NOT_TESTABLE)


@dataclass(frozen=True)
class Found:
    """What some tables of one truth showed.

    Attributes:
        effect: the truth.
        mean: of the estimates.
        sd: of one LLM's value, root mean square over tables.
        power: share of tables with the interval below zero, whatever the gate says.
        expected: what the t test promises at `sd`.
        coverage: share of intervals that hold the truth.
        open: share of tables with the gate open.
        supported: share of tables with a verdict of "supported", smaller than the margin or not.
        verdicts: share of each verdict.
    """

    effect: float
    mean: float
    sd: float
    power: float
    expected: float
    coverage: float
    open: float
    supported: float
    verdicts: dict[str, float]


def primary(llms: int, truth: Planted, *, tables: int, seed: int) -> Found:
    """Gate and claim C over many tables."""
    generator = np.random.default_rng(seed)
    plan = planted_protocol(llms, image_modes=("none", "words", "blank"))
    verdicts: Counter[str] = Counter()
    found, gates = [], 0
    for _ in range(tables):
        trial = Trial.of(planted_primary(plan, truth, generator), [], plan)
        is_open = gate(trial)["open"]
        claim = claim_c(trial, is_open=is_open)
        verdicts[claim["verdict"]] += 1
        gates += is_open
        found.append((claim["estimate"], claim["low"], claim["high"], claim["sd"]))
    mean, low, high, sd = np.asarray(found).T
    typical = float(np.sqrt((sd**2).mean()))
    return Found(
        effect=truth.effect,
        mean=float(mean.mean()),
        sd=typical,
        power=float((high < 0).mean()),
        expected=power_of(llms, typical, truth.effect) if truth.effect else 0.025,
        coverage=float(((low <= truth.effect) & (truth.effect <= high)).mean()),
        open=gates / tables,
        supported=sum(verdicts[name] for name in VERDICTS[:2]) / tables,
        verdicts={name: verdicts[name] / tables for name in VERDICTS},
    )


def whole(llms: int, truth: Planted, *, tables: int, seed: int) -> dict[str, Counter[str]]:
    """Verdicts of every claim over whole studies."""
    generator = np.random.default_rng(seed)
    plan = planted_protocol(llms)
    found: dict[str, Counter[str]] = {}
    for _ in range(tables):
        result = analyse(*planted_study(plan, truth, generator), plan)
        for part in ("gate", "claim_a", "claim_b", "claim_c", "utility"):
            found.setdefault(part, Counter())[result[part]["verdict"]] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--llms", type=int, nargs="+", default=[10, 16])
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--between", type=float, nargs="+", default=[0.02, 0.08], help="SD of the effect")
    parser.add_argument("--alike", type=float, default=0.5, help="correlation of prompts between cells")
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--studies", type=int, default=100, help="whole ones, for claims A and B")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench_study_power.csv"))
    args = parser.parse_args()

    truths = [
        (llms, Planted(effect=effect, between=between, prompts=args.prompts, alike=args.alike))
        for llms in args.llms
        for between in args.between
        for effect in EFFECTS
    ]
    closed = [replace(truths[0][1], image=image) for image in (0.05, 0.0, -0.05)]
    _say("gate open: an image adds .15, words add .05", args, truths)
    _say(
        "no effect, words add .05, an image .05, 0 or -.05", args, [(args.llms[0], truth) for truth in closed]
    )
    print(f"\nwhole studies, {args.llms[0]} LLMs, {args.studies} tables each")
    for name, truth in {
        "an effect of -.10, gap 1 > 2 > 1.8": Planted(effect=-0.10, prompts=args.prompts),
        "no effect, no gap that grows, utility -.10": Planted(
            gap=(2.0, 2.0, 1.8), utility=-0.10, prompts=args.prompts
        ),
    }.items():
        print(f"\n{name}")
        for part, verdicts in whole(args.llms[0], truth, tables=args.studies, seed=args.seed).items():
            shares = ", ".join(f"{verdict} {n / args.studies:.0%}" for verdict, n in verdicts.most_common())
            print(f"  {part:<8} {shares}")


def _say(title: str, args: argparse.Namespace, truths: Sequence[tuple[int, Planted]]) -> None:
    print(f"\n{title}; {args.tables} tables a row, {args.prompts} prompts a cell, 95 % level")
    print(
        "| LLMs | between | image | effect | mean | SD | power | expected | coverage | gate open | supported "
        "| of which < .05 | not supported | undecided | not testable |"
    )
    print("|" + "---|" * 15)
    for number, (llms, truth) in enumerate(truths):
        found = primary(llms, truth, tables=args.tables, seed=args.seed + 1000 * number)
        shares = " | ".join(f"{found.verdicts[name]:.1%}" for name in VERDICTS[1:])
        print(
            f"| {llms} | {truth.between:g} | {truth.image:+.2f} | {truth.effect:+.2f} | {found.mean:+.4f} | "
            f"{found.sd:.3f} | {found.power:.1%} | {found.expected:.1%} | {found.coverage:.1%} | "
            f"{found.open:.1%} | {found.supported:.1%} | {shares} |",
            flush=True,
        )
        _append(args.output_path, {"llms": llms, "tables": args.tables, **asdict(truth), **asdict(found)})


def _append(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    flat = {name: value for name, value in row.items() if name != "verdicts"} | row["verdicts"]
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["time", "bench", *flat])
        if new:
            writer.writeheader()
        writer.writerow({"time": now, "bench": "study_power", **flat})


if __name__ == "__main__":
    main()
