"""How often MIR's 95 % interval holds the population's value, by pairs per dimension.

Pairs are drawn from a known population: rows share their pair's part, layers share the pairs' parts, and
one row in a hundred is massive, as in a language model. The population's value is that of 20 000 pairs.
The interval is the closed-form standard error around the value that the jackknife corrected for bias.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from regap_patch.gap import mir

LAYERS = 2
Samples = list[Tensor]


def sample_pairs(
    generator: torch.Generator, pairs: int, width: int, *, shift: float = 0.0
) -> list[tuple[Samples, Samples]]:
    """Image rows and text rows of each pair, for each layer.

    The rule for outliers acts on the massive rows and leaves the tail of the others alone. Where it cuts into
    a tail, the error bar, which takes the set of outliers as fixed, is too sure: by 10 % for Gaussian rows of
    width 6.
    """
    spread = torch.linspace(0.4, 1.6, width)
    shared = torch.randn(2, pairs, 1, width, generator=generator) * 0.7
    layers = []
    for layer in range(1, LAYERS + 1):
        clouds = []
        for kind, (count, size, massive) in enumerate(((10, layer * spread, 40.0), (8, 1.0, 6.0))):
            rows = torch.randn(pairs, count, width, generator=generator) + shared[kind]
            chance = torch.rand(pairs, count, 1, generator=generator)
            rows = rows * size + (0.0 if kind else 0.5 + shift)
            clouds.append(list(torch.where(chance < 0.01, massive * rows, rows).unbind()))
        layers.append((clouds[0], clouds[1]))
    return layers


@dataclass(frozen=True)
class Coverage:
    """What some repetitions at one number of pairs showed."""

    width: int
    pairs: int
    repetitions: int
    coverage: float
    coverage_uncorrected: float
    deviation: float
    mean_stderr: float
    bias: float
    bias_corrected: float


def coverage(width: int, pairs: int, *, repetitions: int = 200, groups: int = 6, seed: int = 7) -> Coverage:
    generator = torch.Generator().manual_seed(seed)
    truth = mir(sample_pairs(generator, 20_000, width), errors=False).value
    results = [mir(sample_pairs(generator, pairs, width), groups=groups) for _ in range(repetitions)]
    held = [low <= truth <= high for low, high in (result.interval() for result in results)]
    plain = torch.tensor([result.value for result in results])
    corrected = torch.tensor([result.corrected for result in results])
    errors = torch.tensor([result.stderr for result in results])
    return Coverage(
        width=width,
        pairs=pairs,
        repetitions=repetitions,
        coverage=sum(held) / repetitions,
        coverage_uncorrected=float(((plain - truth).abs() < 1.96 * errors).float().mean()),
        deviation=float(corrected.std()),
        mean_stderr=float(errors.mean()),
        bias=float(plain.mean()) - truth,
        bias_corrected=float(corrected.mean()) - truth,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--pairs_per_dimension", type=float, nargs="+", default=[0.5, 1, 2, 3, 6, 12])
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench_coverage.csv"))
    args = parser.parse_args()

    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    print("| pairs | per dimension | coverage | uncorrected | deviation | mean stderr | bias | corrected |")
    print("|---|---|---|---|---|---|---|---|")
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    for share in args.pairs_per_dimension:
        row = coverage(args.width, round(share * args.width), repetitions=args.repetitions, seed=args.seed)
        print(
            f"| {row.pairs} | {share:g} | {row.coverage:.1%} | {row.coverage_uncorrected:.1%} | "
            f"{row.deviation:.4f} | {row.mean_stderr:.4f} | {row.bias:+.4f} | {row.bias_corrected:+.4f} |",
            flush=True,
        )
        new = not args.output_path.exists()
        with args.output_path.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=["time", "bench", *asdict(row)])
            if new:
                writer.writeheader()
            writer.writerow({"time": now, "bench": "mir_coverage", **asdict(row)})


if __name__ == "__main__":
    main()
