"""What the regulariser costs: each loss alone as a share of a training step, and the step's peak memory.

The step is forward and backward of transformers' LLaVA with a frozen language model of 8 layers and width
1024 over 576 image and 128 text tokens; its tower is next to nothing, so that the shares err upwards. "Alone"
is the loss of the same rows, forward and backward, and the statistics that are recorded with it. Steps and
losses take turns in one process; times are medians, of CPU time where the device is the CPU, which other work
on the machine disturbs least. Memory is that of tensors: the weights, and the most that a step adds to them.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from regap_patch import ReGapConfig, apply_regap
from regap_patch.gap.losses import gap_loss
from regap_patch.gap.reduction import reduce_like_lm
from regap_patch.gap.rows import ModalityRows
from regap_patch.gap.statistics import gap_statistics

LIMITS = {"centroid_l2": 0.1, "pairwise_sq": 0.2, "pairwise_l2": 0.5}  # per cent of a step
MEMORY_LIMIT = 1.02
IMAGE_ID, PATCH, VISION_WIDTH = 3, 14, 64


def make_model(args: argparse.Namespace) -> nn.Module:
    """A LLaVA of random weights; only the projector trains."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    side = round(args.image**0.5)
    tower = CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=VISION_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side * PATCH,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        hidden_size=args.width,
        intermediate_size=args.width * 11 // 4,
        num_hidden_layers=args.layers,
        num_attention_heads=max(1, args.width // 64),
        vocab_size=args.vocabulary,
    )
    config = LlavaConfig(
        vision_config=tower, text_config=text, image_token_index=IMAGE_ID, image_seq_length=side**2
    )
    model = LlavaForConditionalGeneration(config).to(args.device).requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    return model.train()


def make_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    side = round(args.image**0.5)
    words = torch.randint(IMAGE_ID + 1, args.vocabulary, (args.batch, args.text))
    slots = torch.full((args.batch, side**2), IMAGE_ID)
    batch = {
        "input_ids": torch.cat([slots, words], 1),
        "labels": torch.cat([torch.full_like(slots, -100), words], 1),
        "pixel_values": torch.randn(args.batch, 3, side * PATCH, side * PATCH),
    }
    return {name: value.to(args.device) for name, value in batch.items()}


def make_rows(args: argparse.Namespace) -> ModalityRows:
    side = round(args.image**0.5)
    image = torch.randn(args.batch, side**2, args.width, device=args.device, requires_grad=True)
    text = 0.02 * torch.randn(args.batch, args.text, args.width, device=args.device)
    every = [torch.ones(rows.shape[:2], dtype=torch.bool, device=args.device) for rows in (image, text)]
    return ModalityRows(image, every[0], text, every[1])


def loss_alone(name: str, rows: ModalityRows) -> None:
    """What a patched forward adds to the graph, and its way back to the image rows."""
    rows.image.grad = None
    reduce_like_lm(gap_loss(name, rows), rows.valid(), rows.text_count()).backward()


def seconds(work: Callable[[], Any], device: str, repeats: int = 1) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    began = clock()
    for _ in range(repeats):
        work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (clock() - began) / repeats


def step(model: nn.Module, batch: dict[str, Tensor]) -> None:
    model.zero_grad(set_to_none=True)
    model(**batch).loss.backward()


def peak_bytes(model: nn.Module, batch: dict[str, Tensor], device: str) -> int:
    """Weights and the most that one step holds beside them."""
    weights = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    model.zero_grad(set_to_none=True)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        step(model, batch)
        return torch.cuda.max_memory_allocated()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step(model, batch)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e.get("name") == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event["args"]["Ev Idx"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return weights + most


def time_everything(model: nn.Module, args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of a step, of each loss alone and of the statistics; they take turns."""
    batch, rows = make_batch(args), make_rows(args)
    works: dict[str, tuple[Callable[[], Any], int]] = {
        "step": (lambda: step(model, batch), 1),
        **{name: (lambda name=name: loss_alone(name, rows), 20) for name in LIMITS},  # type: ignore[misc]
        "statistics": (lambda: gap_statistics(rows), 20),
    }
    for work, _ in works.values():
        work()
    taken = [
        {name: seconds(work, args.device, n) for name, (work, n) in works.items()}
        for _ in range(args.repeats)
    ]
    return {name: statistics.median(row[name] for row in taken) for name in works}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--image", type=int, default=576, help="image tokens of a row, a square number")
    parser.add_argument("--text", type=int, default=128, help="text tokens of a row")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--repeats", type=int, default=3, help="turns of everything")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench_overhead.csv"))
    args = parser.parse_args()

    torch.set_num_threads(1)
    model, batch = make_model(args), make_batch(args)
    medians = time_everything(model, args)
    plain = peak_bytes(model, batch, args.device)
    results = []
    for name in (*LIMITS, "statistics"):
        config = ReGapConfig(loss="off") if name == "statistics" else ReGapConfig(loss=name, alpha=0.1)
        with apply_regap(model, config):
            patched = peak_bytes(model, batch, args.device)
        results.append(
            {
                "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
                "bench": "overhead",
                "loss": name,
                "device": "cpu x1" if args.device == "cpu" else torch.cuda.get_device_name(),
                "machine": platform.machine(),
                "torch": torch.__version__,
                "dtype": "float32",
                "layers": args.layers,
                "width": args.width,
                "tokens": f"{args.image}+{args.text}",
                "batch": args.batch,
                "turns": args.repeats,
                "step_ms": round(1e3 * medians["step"], 1),
                "alone_ms": round(1e3 * medians[name], 3),
                "percent": round(100 * medians[name] / medians["step"], 4),
                "memory_mb": round(patched / 1e6, 1),
                "memory_ratio": round(patched / plain, 5),
            }
        )
    finish(results, args.output_path)


def finish(results: list[dict[str, Any]], path: Path) -> None:
    """Append to the CSV, say what was seen, and fail where a limit is passed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(results[0]))
        if new:
            writer.writeheader()
        writer.writerows(results)
    passed = []
    for result in results:
        limit = LIMITS.get(result["loss"], float("inf"))
        print(
            "{loss}: {alone_ms} ms of a step of {step_ms} ms, {percent} %; peak memory {memory_mb} MB, "
            "{memory_ratio} of the plain step's".format(**result)
        )
        if result["percent"] > limit or result["memory_ratio"] > MEMORY_LIMIT:
            passed.append(f"{result['loss']} (limits: {limit} % of a step, {MEMORY_LIMIT} of its memory)")
    if passed:
        raise SystemExit(f"Too dear: {', '.join(passed)}.")


if __name__ == "__main__":
    main()
