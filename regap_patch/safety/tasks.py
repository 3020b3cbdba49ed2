"""A benchmark in some image modes, and the samples that it makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import BenchmarkError
from regap_patch.records import ImageMode, Sample
from regap_patch.safety.fitted import Fitted
from regap_patch.safety.image_modes import Picture, in_mode, is_possible, pictures_in


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked of a benchmark.

    Attributes:
        adapter: module with BENCHMARK, check and samples (`benchmarks.benchmark.Adapter`).
        root: where its data lies.
        image_modes: in which it is asked; empty: as the data is.
        split: None for the default.
        limit: the first so many.
        irrelevant: folder of pictures for mode irrelevant; None: those of other items.
        fitted: what the target was fitted on, which is asked in no image mode; None for nothing.
    """

    adapter: Any
    root: Path
    image_modes: tuple[ImageMode, ...] = ()
    split: str | None = None
    limit: int | None = None
    irrelevant: Path | None = None
    fitted: Fitted | None = None

    @property
    def name(self) -> str:
        """The benchmark's."""
        return str(self.adapter.BENCHMARK.name)


class Asked:
    """A task's samples in every mode, and the pictures to them.

    Args:
        task: what is asked.
        seed: of noise and of the choice of irrelevant pictures.
        progress: told after each sample how many there are of how many, if given.

    Attributes:
        name: of the benchmark.
        samples: sorted by image mode and uid; `image_sha256` is of the bytes that a target gets.
        left_out: uids of items that the target was fitted on.

    Raises:
        BenchmarkError: data that is not there, a picture that does not open, a mode that no item can be in.
    """

    def __init__(self, task: Task, seed: int, progress: Callable[[int, int], None] | None = None) -> None:
        self.name, self._root, self._seed = task.name, task.root, seed
        items = sorted(
            task.adapter.samples(task.root, split=task.split, limit=task.limit), key=lambda item: item.uid
        )
        if not items:
            raise BenchmarkError(f"{self.name} was asked for, but there is no item of it in {task.root}.")
        self._pool = self._pictures(task, items)
        fitted = task.fitted or Fitted(())
        self.left_out = tuple(item.uid for item in items if fitted.holds(item, task.root))
        items = [item for item in items if item.uid not in self.left_out]
        if not items:
            raise BenchmarkError(
                f"{self.name} was asked for, but the defences were fitted on all of its "
                f"{len(self.left_out)} items: fit them on others, or ask another benchmark."
            )
        self._items = {item.uid: item for item in items}
        wanted: list[tuple[str, ImageMode]] = []
        for mode in _modes(task, items):
            possible = [item.uid for item in items if is_possible(item, mode)]
            if not possible:
                raise BenchmarkError(
                    f"{self.name} was asked for in image mode {mode}, but none of its {len(items)} items has "
                    f"a picture: leave that mode out."
                )
            wanted += [(uid, mode) for uid in possible]
        made = []
        for number, (uid, mode) in enumerate(wanted, 1):
            made.append(self.question(uid, mode)[0])
            if progress is not None:
                progress(number, len(wanted))
        self.samples: tuple[Sample, ...] = tuple(sorted(made, key=lambda made: (made.image_mode, made.uid)))

    def _pictures(self, task: Task, items: Sequence[Sample]) -> Sequence[Picture]:
        if task.irrelevant is not None:
            return pictures_in(task.irrelevant)
        return sorted({Picture(item.image, item.cluster, self._root) for item in items if item.image})

    def question(self, uid: str, mode: ImageMode) -> tuple[Sample, bytes | None]:
        """A sample and the bytes of its picture."""
        return in_mode(self._items[uid], mode, self._root, seed=self._seed, pool=self._pool)


def count_items(task: Task) -> dict[str, int]:
    """How many items a task asks in each image mode; no picture is opened.

    Raises:
        BenchmarkError: the data is not there or not what it should be.
    """
    items = list(task.adapter.samples(task.root, split=task.split, limit=task.limit))
    return {mode: sum(is_possible(item, mode) for item in items) for mode in _modes(task, items)}


def _modes(task: Task, items: Sequence[Sample]) -> tuple[ImageMode, ...]:
    return task.image_modes or tuple(sorted({item.image_mode for item in items}))
