"""Time the splice, forward and backward, against a loop over the rows of a batch.

The loop takes the steps of the published LLaVA code in its order (drop padding; per row: split the text at
its placeholders, embed the pieces in one call, split again, join with the features; cut; pad; stack); it was
written for this file. Both get the same ids, labels, features (which need gradients, as in training) and
outgoing gradient; results are checked to be equal before the clock starts. Runs are interleaved; the ratio is
the median of the pairs. Embeddings are frozen as in stage 1, then trainable as in stage 2.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.splice import plan_splice, splice_embeddings, splice_labels

MAX_LENGTH = 2048


class Batch(NamedTuple):
    """B rows of L ids, one placeholder in each; image features (B, P, D)."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    features: Tensor
    outgoing: Tensor


Splice = Callable[[Batch, nn.Embedding], tuple[Tensor, Tensor, Tensor]]


def ours(batch: Batch, embedding: nn.Embedding) -> tuple[Tensor, Tensor, Tensor]:
    rows, patches, _ = batch.features.shape
    plan = plan_splice(batch.input_ids, [patches] * rows, batch.attention_mask, max_length=MAX_LENGTH)
    text = embedding(batch.input_ids.flatten()[plan.text_source])
    embeds = splice_embeddings(plan, text, batch.features.flatten(0, 1))
    return embeds, splice_labels(plan, batch.labels), plan.attention_mask()


def row_loop(batch: Batch, embedding: nn.Embedding) -> tuple[Tensor, Tensor, Tensor]:
    ids = [row[mask] for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    labels = [row[mask] for row, mask in zip(batch.labels, batch.attention_mask, strict=True)]
    joined: list[Tensor] = []
    joined_labels: list[Tensor] = []
    image = 0
    for row, row_labels in zip(ids, labels, strict=True):
        places = torch.where(row == IMAGE_TOKEN_INDEX)[0].tolist()
        bounds = [-1, *places, len(row)]
        spans = [slice(a + 1, b) for a, b in pairwise(bounds)]
        pieces = [row[span] for span in spans]
        words = embedding(torch.cat(pieces)).split([len(piece) for piece in pieces])
        parts, part_labels = [], []
        for number, (piece, span) in enumerate(zip(words, spans, strict=True)):
            parts.append(piece)
            part_labels.append(row_labels[span])
            if number < len(places):
                features = batch.features[image]
                image += 1
                parts.append(features)
                part_labels.append(row_labels.new_full((len(features),), IGNORE_INDEX))
        joined.append(torch.cat(parts)[:MAX_LENGTH])
        joined_labels.append(torch.cat(part_labels)[:MAX_LENGTH])

    longest = max(len(row) for row in joined)
    padded = []
    padded_labels = joined_labels[0].new_full((len(joined), longest), IGNORE_INDEX)
    mask = torch.zeros_like(padded_labels, dtype=torch.bool)
    for number, (row, row_labels) in enumerate(zip(joined, joined_labels, strict=True)):
        padded.append(torch.cat([row, row.new_zeros(longest - len(row), row.shape[1])]))
        padded_labels[number, : len(row)] = row_labels
        mask[number, : len(row)] = True
    return torch.stack(padded), padded_labels, mask


def make_batch(args: argparse.Namespace) -> Batch:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, args.vocabulary, (args.batch, args.text + 1), generator=generator)
    ids[:, args.text // 4] = IMAGE_TOKEN_INDEX
    features = torch.randn(args.batch, args.image, args.width, generator=generator)
    outgoing = torch.randn(args.batch, args.image + args.text, args.width, generator=generator)
    batch = Batch(ids, ids.clone(), torch.ones_like(ids, dtype=torch.bool), features, outgoing)
    return Batch(*(tensor.to(args.device) for tensor in batch))


def step(splice: Splice, batch: Batch, embedding: nn.Embedding) -> tuple[float, list[Tensor]]:
    """Seconds of one forward and backward pass, and all that it computed."""
    features = batch.features.detach().requires_grad_()
    embedding.weight.grad = None
    _synchronize(features)
    start = time.perf_counter()
    embeds, labels, mask = splice(batch._replace(features=features), embedding)
    embeds.backward(batch.outgoing)
    _synchronize(features)
    seconds = time.perf_counter() - start
    grads = [grad for grad in (features.grad, embedding.weight.grad) if grad is not None]
    return seconds, [embeds.detach(), labels, mask, *grads]


def compare(args: argparse.Namespace, trainable: bool) -> dict[str, object]:
    batch = make_batch(args)
    embedding = nn.Embedding(args.vocabulary, args.width, device=args.device).requires_grad_(trainable)
    for got, expected in zip(
        step(ours, batch, embedding)[1], step(row_loop, batch, embedding)[1], strict=True
    ):
        torch.testing.assert_close(got, expected)
    pairs = [
        (step(ours, batch, embedding)[0], step(row_loop, batch, embedding)[0]) for _ in range(args.repeats)
    ]
    ratios = sorted(mine / loop for mine, loop in pairs)
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "bench": "splice",
        "embeddings": "trainable" if trainable else "frozen",
        "device": torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"cpu x{torch.get_num_threads()}",
        "machine": platform.machine(),
        "torch": torch.__version__,
        "dtype": "float32",
        "batch": args.batch,
        "tokens": args.image + args.text,
        "width": args.width,
        "pairs": args.repeats,
        "ours_ms": round(1e3 * statistics.median(mine for mine, _ in pairs), 1),
        "loop_ms": round(1e3 * statistics.median(loop for _, loop in pairs), 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_min": round(ratios[0], 4),
        "ratio_max": round(ratios[-1], 4),
    }


def _synchronize(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=576, help="image tokens of a row")
    parser.add_argument("--text", type=int, default=128, help="text tokens of a row")
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--repeats", type=int, default=7, help="interleaved pairs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=float, default=0.15, help="fail above this ratio")
    parser.add_argument("--output_path", type=Path, default=Path("playground/runs/bench.csv"))
    args = parser.parse_args()

    results = [compare(args, trainable) for trainable in (False, True)]
    args.output_path.parent.mkdir(parents=True, exist_ok=True)
    new = not args.output_path.exists()
    with args.output_path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(results[0]))
        if new:
            writer.writeheader()
        writer.writerows(results)
    for result in results:
        print(
            "splice, forward + backward, embeddings {embeddings}: {ours_ms} ms, loop {loop_ms} ms, median "
            "ratio {ratio} ({ratio_min} to {ratio_max}, {pairs} pairs, {device})".format(**result)
        )
    worst = max(float(str(result["ratio"])) for result in results)
    if worst > args.limit:
        raise SystemExit(f"The ratio {worst} is above {args.limit}.")


if __name__ == "__main__":
    main()
