"""Memory of MIR against depth: what the collector holds, and how the process grows beyond the loaded model.

    python scripts/bench/measure_memory.py                 # 8 and 32 layers, each in a process of its own
    python scripts/bench/measure_memory.py --store         # beside them a process that stores every state

The model is a LLaVA of transformers with random weights: wide states and thin layers, so that states are what
takes the memory. `--one N` measures N layers in this process and prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DEPTHS = (8, 32)
PAIRS, TEXT, WIDTH = 48, 600, 256
IMAGE, SIDE, PATCH = 63, 28, 14
PATCHES = (SIDE // PATCH) ** 2


def build(layers: int) -> Any:
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=4, head_dim=8,
        num_key_value_heads=1, vocab_size=64, max_position_embeddings=2 * TEXT,
    )  # fmt: skip
    vision = CLIPVisionConfig(**small, image_size=SIDE, patch_size=PATCH)
    torch.manual_seed(0)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE)
    return LlavaForConditionalGeneration(config).eval()


class Pairs:
    """Forward arguments, made when asked for."""

    def __len__(self) -> int:
        return PAIRS

    def __getitem__(self, index: int) -> dict[str, Any]:
        import torch

        draw = torch.Generator().manual_seed(index)
        words = torch.randint(3, 60, (TEXT - index,), generator=draw)  # ragged
        ids = torch.cat([torch.tensor([1] + [IMAGE] * PATCHES), words])
        pixels = torch.randn(1, 3, SIDE, SIDE, generator=draw)
        return {"input_ids": ids[None], "pixel_values": pixels}


def resident() -> int:
    """The most that this process has had in memory so far, in bytes."""
    status = Path("/proc/self/status").read_text()  # getrusage also counts the process that started this one
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def measure(layers: int, *, store: bool) -> dict[str, Any]:
    import torch

    from regap_patch.gap import mir
    from regap_patch.measure import MirSettings, measure_mir

    torch.set_num_threads(1)
    model, pairs = build(layers), Pairs()
    with torch.no_grad():
        model(**pairs[0])  # kernels and buffers of a forward pass are not the collector's
    before = resident()
    if not store:
        report = measure_mir(model, pairs, MirSettings(groups=0))  # type: ignore[arg-type]
        return {"layers": layers, "grown": resident() - before, "mir": report.result.value, **report.memory}
    with torch.no_grad():
        states = [model(**pairs[i], output_hidden_states=True).hidden_states for i in range(PAIRS)]
    rows = [
        ([state[k][0, 1 : 1 + PATCHES] for state in states], [state[k][0, 1 + PATCHES :] for state in states])
        for k in range(1, layers + 1)
    ]
    return {"layers": layers, "grown": resident() - before, "mir": mir(rows).value}


def in_a_process(layers: int, *flags: str) -> dict[str, Any]:
    """`measure` in a fresh process."""
    # What is freed goes back at once: otherwise the peak is also one of glibc's heap and its holes.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    done = subprocess.run(
        [sys.executable, __file__, "--one", str(layers), *flags],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description="Memory of MIR against depth.")
    parser.add_argument("--one", type=int, metavar="LAYERS", help="measure here and print JSON")
    parser.add_argument("--store", action="store_true", help="also (with --one: instead) store every state")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, store=arguments.store)))
        return
    print(f"{PAIRS} pairs of {TEXT} tokens, width {WIDTH}, float32; MB")
    print(
        "layers  collector  process grew by  all states stored" + ("  process, all stored" * arguments.store)
    )
    for layers in DEPTHS:
        found = in_a_process(layers)
        cells = [found["collector_peak"], found["grown"], found["store_everything"]]
        if arguments.store:
            stored = in_a_process(layers, "--store")
            assert stored["mir"] == found["mir"], "the two disagree"
            cells.append(stored["grown"])
        print(f"{layers:>6}  " + "  ".join(f"{cell / 1e6:>14.1f}" for cell in cells))


if __name__ == "__main__":
    main()
