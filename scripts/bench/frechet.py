"""Time a layer's term of MIR, and its trace term alone, against the shape of the published script.

The reference takes the steps of the released script in its order (states of each sample to float32, joined,
scaled, outliers overwritten, centred copies, two float32 covariances, their product, scipy's `sqrtm` or the
five steps of its fast mode); it was written for this file. Both get the same half-precision states, sample by
sample: tokens with spectrum i^-1 and one massive token in 300. They take turns in one process with one
thread. Times are CPU seconds and those of the best turn: other work on the machine slows the memory that
eigenvalues wait for. The ratio of each turn is reported beside. The results are compared as well: fast mode's
is another number.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regap_patch.gap.coupling import couple
from regap_patch.gap.layer import layer_term
from regap_patch.gap.moments import Moments

SAMPLES = 17
LIMITS = {("term", "accurate"): 4.0, ("term", "fast"): 2.5, ("trace", 1024): 7.0, ("trace", 2048): 10.0}
Samples = list[Tensor]


def make_states(rows: int, width: int, seed: int) -> Samples:
    """States of some samples, (n, D) float16 each."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, width + 1) ** -0.5
    turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    states = (torch.randn(rows, width, generator=generator) * spread) @ turn
    states += 0.2 * torch.randn(width, generator=generator) * width**-0.5
    states[::300] *= 30
    return list((states * width**0.25).half().chunk(SAMPLES))


def reference_covariances(image: Samples, text: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """|difference of means|^2 and both covariances, float32, as the script takes them."""
    clouds = [torch.cat([sample.float() for sample in samples]) for samples in (image, text)]
    scale = 1.0 / clouds[1].norm(dim=-1).mean(0)
    means, covariances = [], []
    for cloud in clouds:
        rows = scale * cloud
        norms = rows.norm(dim=-1)
        far = (norms - norms.median()).abs() > 3 * norms.std()
        rows[far] = rows.median(dim=0).values
        means.append(rows.mean(0))
        centred = rows - means[-1]
        covariances.append(centred.t() @ centred / (len(rows) - 1))
    return (means[0] - means[1]).square().sum(), covariances[0], covariances[1]


def reference_root(first: Tensor, second: Tensor, mode: str) -> Tensor:
    """Trace of what the script takes for (S1 S2)^(1/2), float32."""
    if mode == "accurate":
        from scipy.linalg import sqrtm

        return torch.from_numpy(sqrtm(first.numpy().dot(second.numpy())).real.copy()).trace()
    product = first @ second
    root, other = product, torch.eye(len(product))
    for _ in range(5):
        root = 0.5 * (root + torch.inverse(other) @ product)
        other = 0.5 * (other + torch.inverse(root) @ product)
    return root.trace()


def reference_term(image: Samples, text: Samples, mode: str) -> float:
    square, first, second = reference_covariances(image, text)
    return float(square + first.trace() + second.trace() - 2 * reference_root(first, second, mode))


def our_trace(first: Tensor, second: Tensor) -> float:
    """The trace term from two covariances, (D, D) float64 each."""
    zero = torch.zeros(len(first), dtype=torch.float64)
    sides = [Moments(2 * len(first), zero, side, None, torch.float64) for side in (first, second)]
    return float(couple(sides[0], sides[1]).trace())


def timed(work: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def in_turns(works: dict[str, Callable[[], float]], repeats: int) -> dict[str, tuple[list[float], float]]:
    """CPU seconds of each turn, and the result, by name."""
    found: dict[str, tuple[list[float], float]] = {name: ([], 0.0) for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds, result = timed(work)
            found[name] = ([*found[name][0], seconds], result)
    return found


def report(
    args: argparse.Namespace, part: str, width: int, found: dict[str, tuple[list[float], float]]
) -> list[dict[str, Any]]:
    ours, value = found.pop("ours")
    base = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "bench": "frechet",
        "part": part,
        "device": f"cpu x{torch.get_num_threads()}",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "width": width,
        "rows": args.rows,
        "turns": len(ours),
        "ours_s": round(min(ours), 3),
    }
    if not found:
        return [
            {**base, "against": "", "against_s": "", "ratio": "", "ratio_min": "", "ratio_max": "", "off": ""}
        ]
    lines = []
    for name, (seconds, result) in found.items():
        ratios = sorted(theirs / mine for theirs, mine in zip(seconds, ours, strict=True))
        lines.append(
            {
                **base,
                "against": name,
                "against_s": round(min(seconds), 3),
                "ratio": round(min(seconds) / min(ours), 2),
                "ratio_min": round(ratios[0], 2),
                "ratio_max": round(ratios[-1], 2),
                "off": f"{result / value - 1:.1e}",
            }
        )
    return lines


def measure_term(args: argparse.Namespace, width: int, *, alone: bool = False) -> list[dict[str, Any]]:
    image, text = make_states(args.rows, width, 0), make_states(args.rows, width, 1)
    works = {"ours": lambda: layer_term(image, text).frechet}
    if not alone:
        works["accurate"] = lambda: reference_term(image, text, "accurate")
        works["fast"] = lambda: reference_term(image, text, "fast")
    return report(args, "term", width, in_turns(works, 1 if alone else args.repeats))


def measure_trace(args: argparse.Namespace, width: int) -> list[dict[str, Any]]:
    _, first, second = reference_covariances(
        make_states(args.rows, width, 0), make_states(args.rows, width, 1)
    )
    doubles = first.double(), second.double()
    works = {
        "ours": lambda: our_trace(*doubles),
        "accurate": lambda: float(reference_root(first, second, "accurate")),
    }
    return report(args, "trace", width, in_turns(works, args.repeats))


def alone_on_one_thread() -> None:
    """Start again with one thread: numpy's library reads its number of threads as it loads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(names, "1"))
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_064, help="of each modality")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--trace_widths", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--term_widths", type=int, nargs="*", default=[2048])
    parser.add_argument("--alone_widths", type=int, nargs="*", default=[4096], help="ours only, one turn")
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench_frechet.csv"))
    args = parser.parse_args()
    alone_on_one_thread()

    square = torch.eye(8)
    reference_root(square, square, "accurate")  # imports scipy before the clock starts
    missed = []
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    plan = [
        *((measure_trace, width, {}) for width in args.trace_widths),
        *((measure_term, width, {}) for width in args.term_widths),
        *((measure_term, width, {"alone": True}) for width in args.alone_widths),
    ]
    for measure, width, settings in plan:
        for line in measure(args, width, **settings):
            new = not args.output_path.exists()
            with args.output_path.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(line))
                if new:
                    writer.writeheader()
                writer.writerow(line)
            text = "{part} at width {width}: {ours_s} s"
            if line["against"]:
                text += ", {against} {against_s} s, ratio {ratio} ({ratio_min} to {ratio_max}), off by {off}"
            print(text.format(**line), flush=True)
            limit = LIMITS.get((line["part"], line["against"]), 0.0)
            if line["part"] == "trace":
                limit = LIMITS.get(("trace", width), 0.0)
            if line["against"] and line["ratio"] < limit:
                missed.append(
                    f"{line['part']} at {width} against {line['against']}: {line['ratio']} < {limit}"
                )
    if missed:
        raise SystemExit("Slower than promised: " + "; ".join(missed) + ".")


if __name__ == "__main__":
    main()
