"""Where the files of a run lie.

```
RUN/manifest.json                                       how answers are made; never changes
    parity.json                                         answers at batch 1 and N compared
    samples/BENCHMARK.jsonl                             one Sample for each item and image mode
    answers/BENCHMARK/IMAGE_MODE/part-SHARD.jsonl       Answer
    trace/BENCHMARK/IMAGE_MODE/part-SHARD.jsonl         timings: they differ from run to run, answers do not
    trace/BENCHMARK/IMAGE_MODE/steps-SHARD.jsonl        how each answer of a defended model came about
    trace/latency-SHARD.json                            what a defence stack costs, beside the same without
    verdicts/JUDGE/BENCHMARK/IMAGE_MODE.jsonl           Verdict
    metrics.json
    report/
```
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.records import Answer, Sample, read_lines


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths under a root."""

    root: Path

    @property
    def manifest(self) -> Path:
        """How answers are made."""
        return self.root / "manifest.json"

    @property
    def parity(self) -> Path:
        """Answers at batch 1 and N compared."""
        return self.root / "parity.json"

    def samples(self, benchmark: str) -> Path:
        """All that a benchmark asks."""
        return self.root / "samples" / f"{benchmark}.jsonl"

    def answers(self, benchmark: str, image_mode: str, shard: int) -> Path:
        """What a shard has answered."""
        return self.root / "answers" / benchmark / image_mode / f"part-{shard}.jsonl"

    def trace(self, benchmark: str, image_mode: str, shard: int) -> Path:
        """How long it took."""
        return self.root / "trace" / benchmark / image_mode / f"part-{shard}.jsonl"

    def steps(self, benchmark: str, image_mode: str, shard: int) -> Path:
        """How each answer came about; of two lines with one key the later one holds."""
        return self.root / "trace" / benchmark / image_mode / f"steps-{shard}.jsonl"

    def latency(self, shard: int) -> Path:
        """What a defence stack costs, beside the same without."""
        return self.root / "trace" / f"latency-{shard}.json"

    def lock(self, shard: int | str) -> Path:
        """Held by the process that works on a shard."""
        return self.root / f".shard-{shard}.lock"

    def parts(self, benchmark: str, image_mode: str) -> list[Path]:
        """Files of answers of all shards."""
        return sorted((self.root / "answers" / benchmark / image_mode).glob("part-*.jsonl"))

    def read_samples(self, benchmark: str) -> Iterator[Sample]:
        """The samples of a benchmark, in their order."""
        return read_lines(self.samples(benchmark), Sample)

    def read_answers(self, benchmark: str, image_mode: str) -> Iterator[Answer]:
        """The answers of all shards as they lie there: see `blocks.merge` for one of each."""
        for part in self.parts(benchmark, image_mode):
            yield from read_lines(part, Answer)


@contextmanager
def held(lock: Path) -> Iterator[bool]:
    """Whether this process alone holds a lock from here on; a kill lets go of it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            free = False
        yield free


def write_whole(path: Path, text: str) -> None:
    """The file is there with all of its text, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def append_trace(path: Path, *lines: Mapping[str, Any]) -> None:
    """Add lines of a trace. What a kill tears here is lost and not missed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(fields, sort_keys=True) + "\n" for fields in lines))
