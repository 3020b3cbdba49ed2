"""Runs inside upstream's environment and does what `peer.py` asks, one JSON line a request and one a reply.

A request is `{"operation", "arguments", "reply_path"}`; an operation is a name of the desk below, or
`module.function` of a module in this folder. The reply is `{"ok": true}`, with the result in
`reply_path` as a file for `torch.load(weights_only=True)`, or `{"ok": false, "error"}`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import json
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import operations  # this script's folder is on the path, the repository is not: `llava` is upstream's
import torch


def stand_in_for_deepspeed() -> None:
    """Upstream imports DeepSpeed to save a projector, also where nothing is partitioned."""
    for name in ("deepspeed", "deepspeed.zero", "deepspeed.runtime", "deepspeed.runtime.zero"):
        _add_module(name, is_package=True)
    _add_module(
        "deepspeed.runtime.zero.partition_parameters", is_package=False
    ).ZeroParamStatus = types.SimpleNamespace()
    sys.modules["deepspeed"].zero = sys.modules["deepspeed.zero"]


def _add_module(name: str, *, is_package: bool) -> types.ModuleType:
    module = types.ModuleType(name)
    # Without a spec, transformers' question whether the package is installed raises.
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=is_package)
    sys.modules[name] = module
    return module


@contextlib.contextmanager
def tower_in_run_dtype() -> Iterator[None]:
    """Upstream casts the tower to fp16 in fp32 runs too, ours follows the run: upstream's stays fp32 here."""
    from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower

    cast = CLIPVisionTower.to

    def to(tower: Any, *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
        return cast(tower, *args, dtype=None if dtype == torch.float16 else dtype, **kwargs)

    with mock.patch.object(CLIPVisionTower, "to", to):
        yield


class Desk:
    """The operations by name, and the training step that is kept ready between requests."""

    def __init__(self) -> None:
        self.step: Callable[[int], dict[str, Any]] | None = None

    def versions(self) -> dict[str, str]:
        return operations.versions()

    def collated_rows(self, **arguments: Any) -> list[dict[str, Any]]:
        return operations.collated_rows(**arguments)

    def answer(self, **arguments: Any) -> dict[str, Any]:
        return operations.answer(**arguments)

    def train(self, **arguments: Any) -> dict[str, list[float]]:
        with tower_in_run_dtype():
            return operations.train(**arguments)

    def prepare_step(self, **arguments: Any) -> None:
        with tower_in_run_dtype():
            self.step = operations.prepare_step(**arguments)

    def run_step(self, repetitions: int) -> dict[str, Any]:
        if self.step is None:
            raise RuntimeError("run_step was asked before prepare_step")
        return self.step(repetitions)


def serve() -> None:
    wire = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever upstream prints joins the log and cannot fall between two replies
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    stand_in_for_deepspeed()
    desk = Desk()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            module, _, name = request["operation"].rpartition(".")
            owner = importlib.import_module(module) if module else desk
            result = getattr(owner, name)(**request["arguments"])
            torch.save(result, request["reply_path"])
            reply = {"ok": True}
        except Exception:
            reply = {"ok": False, "error": traceback.format_exc()}
        wire.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
    serve()
