"""Time a training step of ours against upstream LLaVA's: one model, one batch, one thread, CPU seconds.

Upstream runs in its own environment and process (tests/upstream). First forward and backward alone, in
interleaved pairs: the ratio is the median of the pairs, with its 95 % interval. Then whole steps with the
Trainer, the optimizer and the data loader, in interleaved runs; where ours takes more, both profiles follow.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import math
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from regap_patch.study import tiny, world
from tests.upstream import operations
from tests.upstream.peer import Peer
from tests.upstream.recipes import random_projector, stage_flags


class Assets(NamedTuple):
    """What both are trained from."""

    llama: Path
    clip: Path
    world: world.World
    projector: Path


def make_assets(root: Path, args: argparse.Namespace) -> Assets:
    sizes = {"num_pretrain": 64, "num_finetune": 64, "num_questions": 16, "image_size": 112}
    made = world.make_world(root / "world", **sizes)
    tiny.train_tokenizer(made.corpus, root / "tokenizer")
    llama = tiny.make_tiny_llama(
        root / "llama", root / "tokenizer", hidden_size=args.width, num_layers=args.layers, num_heads=8
    )
    clip = tiny.make_tiny_clip(root / "clip", image_size=112)
    torch.save(random_projector(64, args.width), root / "projector.bin")
    return Assets(llama, clip, made, root / "projector.bin")


def compare_passes(stage: int, upstream: Peer, argv: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Forward and backward of the first batch, in turns; who begins alternates."""
    ours = operations.prepare_step(argv=argv)
    upstream.call("prepare_step", argv=argv)

    def theirs(repetitions: int) -> dict[str, Any]:
        return upstream.call("run_step", repetitions=repetitions)

    losses = [side(3)["loss"] for side in (ours, theirs)]  # also warms up
    if not math.isclose(*losses, rel_tol=1e-5):
        raise SystemExit(f"Stage {stage}: the losses {losses} differ, so the two do not compute the same.")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for pair in range(args.pairs):
        sides = [("ours", ours), ("theirs", theirs)]
        for name, side in sides if pair % 2 else reversed(sides):
            seconds[name].append(side(args.repetitions)["seconds"] / args.repetitions)
    ratios = sorted(mine / other for mine, other in zip(*seconds.values(), strict=True))
    low, high = median_interval(len(ratios))
    return {
        "pairs": len(ratios),
        "ours_ms": round(1e3 * statistics.median(seconds["ours"]), 1),
        "upstream_ms": round(1e3 * statistics.median(seconds["theirs"]), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[low], 3),
        "ratio_high": round(ratios[high], 3),
    }


def compare_steps(upstream: Peer, argv: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Whole steps: runs of both in turns, the median step of all runs without the first, which warm up."""
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(args.runs):
        seconds["ours"] += operations.train(argv=argv)["step_seconds"][2:]
        seconds["theirs"] += upstream.call("train", argv=argv)["step_seconds"][2:]
    mine, other = (1e3 * statistics.median(values) for values in seconds.values())
    return {
        "step_ours_ms": round(mine, 1),
        "step_upstream_ms": round(other, 1),
        "step_ratio": round(mine / other, 3),
    }


def median_interval(count: int, level: float = 0.95) -> tuple[int, int]:
    """Ranks of a sorted sample between which its median lies with that probability (binomial)."""
    for rank in range(count // 2, -1, -1):
        outside = 2 * sum(math.comb(count, smaller) for smaller in range(rank + 1)) / 2**count
        if outside <= 1 - level:
            return rank, count - 1 - rank
    return 0, count - 1


def bench_stage(
    stage: int, upstream: Peer, root: Path, assets: Assets, args: argparse.Namespace
) -> dict[str, Any]:
    output_path = root / f"llava-stage{stage}"
    argv = stage_flags(
        stage, **assets._asdict(), output_path=output_path, max_steps=args.steps, batch_size=args.batch
    )
    result = {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "bench": "step_vs_upstream",
        "stage": stage,
        "model": f"{args.layers}x{args.width}",
        "batch": args.batch,
        "device": "cpu x1",
        "machine": platform.machine(),
        "torch": torch.__version__,
        **compare_passes(stage, upstream, argv, args),
        **compare_steps(upstream, argv, args),
    }
    print(
        "stage {stage}, forward + backward: ours {ours_ms} ms, upstream {upstream_ms} ms, median ratio "
        "{ratio} ({ratio_low} to {ratio_high}, 95 %, {pairs} pairs)\n"
        "stage {stage}, whole step with the Trainer: ours {step_ours_ms} ms, upstream {step_upstream_ms} ms, "
        "ratio {step_ratio}".format(**result)
    )
    if result["step_ratio"] > 1:
        print("a whole step of ours takes more; where the time went, by function:")
        print("ours\n" + operations.train(argv=argv, profile=True)["profile"])
        print("upstream\n" + upstream.call("train", argv=argv, profile=True)["profile"])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=31, help="interleaved pairs of forward + backward")
    parser.add_argument("--repetitions", type=int, default=3, help="passes of one measurement")
    parser.add_argument("--steps", type=int, default=16, help="steps of one run with the Trainer")
    parser.add_argument("--runs", type=int, default=3, help="interleaved runs with the Trainer")
    parser.add_argument("--limit", type=float, default=1.0, help="fail where a median ratio is above it")
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench_step.csv"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="regap-bench-") as folder, Peer() as upstream:
        assets = make_assets(Path(folder), args)
        results = [bench_stage(stage, upstream, Path(folder), assets, args) for stage in (1, 2)]
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    new = not args.output_path.exists()
    with args.output_path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(results[0]))
        if new:
            writer.writeheader()
        writer.writerows(results)
    worst = max(result["ratio"] for result in results)
    if worst > args.limit:
        raise SystemExit(f"The ratio {worst} of forward + backward is above {args.limit}.")


if __name__ == "__main__":
    main()
