"""What `regap gap` and `regap mir` have in common: flags of the model, progress, tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Flags that say how a checkpoint is loaded and shown its pairs."""
    add = parser.add_argument
    add("--model_base", help="language model of a stage 1 (mm_projector.bin) or an adapter")
    add("--device", help="where the model runs (a GPU, if there is one)")
    add("--dtype", choices=("float32", "float16", "bfloat16"), help="float32 on the CPU, else float16")
    add(
        "--max_text_tokens",
        type=int,
        default=1024,
        help="texts are cut there, so that prompt and image fit beside them; 0: never (%(default)s)",
    )


def loading_options(arguments: argparse.Namespace) -> Any:
    """The `LoadOptions` of these flags."""
    from regap_patch.measure.runs import LoadOptions

    return LoadOptions(
        base=arguments.model_base,
        template=getattr(arguments, "template", None),
        device=arguments.device or _device(),
        dtype=arguments.dtype,
        offload=getattr(arguments, "offload", False),
        max_text_tokens=arguments.max_text_tokens or None,
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Bars:
    """Progress as bars on standard error, for a `with`; a closed bar leaves no line."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._what = ""

    def __call__(self, what: str, done: int, of: int) -> None:
        """Show how far `what` is."""
        from tqdm import tqdm

        if self._bar is None or what != self._what:
            self.close()
            self._bar, self._what = tqdm(total=of, desc=what, leave=False, disable=None), what
        self._bar.update(done - self._bar.n)
        if done == of:
            self.close()

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what they hold, the first to the left and the others to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
