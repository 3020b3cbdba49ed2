"""Targets that are opened one after the other, so that a later one can use the weights of an earlier one."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from regap_patch.demo.shared_weights import Shared, share_weights

MIB = 1 << 20


class Opening:
    """Opens targets; of what they hold in common there is one copy.

    Args:
        say: told a line about what two targets share.

    Attributes:
        shared: what the latest one had in common with one before; None for nothing.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self._say = say
        self._turn = threading.Lock()
        self._models: list[weakref.ref[Any]] = []
        self.shared: Shared | None = None

    def open(self, make: Callable[[], Any]) -> Any:
        """A target with its weights loaded, if it has any.

        Args:
            make: gives the target.

        Raises:
            EvaluationError: it cannot be loaded.
        """
        with self._turn:
            target = make()
            if not hasattr(target, "loaded"):
                return target
            others = [model for model in (held() for held in self._models) if model is not None]
            model = self._beside(target, others[0]) if others else target.loaded()[0]
            self._models = [held for held in self._models if held() is not None]
            self._models.append(weakref.ref(model))
            return target

    def _beside(self, target: Any, other: Any) -> Any:
        """Through main memory, so that the device never holds what both have twice."""
        device, target.device = target.device, "cpu"
        try:
            model = target.loaded()[0]
        finally:
            target.device = device
        self.shared = share_weights(other, model, device)
        model.to(device)
        shared, own = self.shared.bytes_shared / MIB, self.shared.bytes_own / MIB
        self._say(f"Both sides share {shared:.1f} MiB of weights; {own:.1f} MiB are the second one's own.")
        return model
