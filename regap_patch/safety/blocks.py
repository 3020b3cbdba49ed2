"""Fixed blocks of the sorted items: what is answered together, whichever shard does it and however often.

An answer may depend on its batch (padding, kernels), so the batches must not depend on how far a run had come
or on how many processes share it. A block that a kill has torn is answered again as a whole.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from regap_patch.errors import ConfigError, EvaluationError
from regap_patch.records import Answer, ImageMode, Sample, append_lines, read_lines, to_line
from regap_patch.safety.folder import RunFolder, append_trace, held, write_whole

GIVE_UP = 3  # blocks in a row of which not one item could be answered


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several processes that share a run.

    Raises:
        ConfigError: there is no such one.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"Shard {self.index} of {self.count} was asked for: shards are counted from 0, below "
                f"--num_shards."
            )


@dataclass(frozen=True, slots=True)
class Block:
    """Samples that are answered together.

    Attributes:
        benchmark: of all of them.
        image_mode: of all of them.
        number: among all blocks of the run.
        samples: sorted by uid.
    """

    benchmark: str
    image_mode: ImageMode
    number: int
    samples: tuple[Sample, ...]


def blocks_of(samples: Sequence[Sample], size: int) -> list[Block]:
    """Samples cut into blocks: by benchmark, image mode and uid, whatever their order."""
    ordered = sorted(samples, key=lambda sample: (sample.benchmark, sample.image_mode, sample.uid))
    made: list[Block] = []
    for (benchmark, mode), group in groupby(ordered, lambda sample: (sample.benchmark, sample.image_mode)):
        rows = tuple(group)
        for start in range(0, len(rows), size):
            made.append(Block(benchmark, mode, len(made), rows[start : start + size]))
    return made


def item_seed(uid: str, seed: int) -> int:
    """The seed of an item's sampling: the same in every image mode and in whatever company."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{uid}".encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Progress:
    """What a call of `answer_blocks` did.

    Attributes:
        answered: items, now.
        found: items that had been answered before.
        errors: items of this shard without an answer.
    """

    answered: int
    found: int
    errors: int


def answer_blocks(
    folder: RunFolder,
    blocks: Sequence[Block],
    keys: Mapping[tuple[str, str], str],
    shard: Shard,
    answer: Callable[[Block], Sequence[Answer]],
    progress: Callable[[int], None] | None = None,
) -> Progress:
    """Answer the blocks of a shard that are not answered yet, each on the disk before the next begins.

    Args:
        folder: of the run.
        blocks: all of the run's.
        keys: of every sample, by uid and image mode.
        shard: takes every `count`-th block.
        answer: gives one answer for each sample of a block.
        progress: told after each block how many samples it had.

    Raises:
        EvaluationError: the folder holds another run's answers, cannot be written, or nothing answers.
    """
    whole = _clean(folder, blocks, keys, shard)
    mine = [block for block in blocks if block.number % shard.count == shard.index]
    answered = errors = silent = 0
    for block in mine:
        if block.number not in whole:
            started = time.perf_counter()
            rows = answer(block)
            _write(folder, block, shard, rows, time.perf_counter() - started)
            failed = sum(row.error is not None for row in rows)
            answered, errors = answered + len(rows) - failed, errors + failed
            silent = silent + 1 if failed == len(rows) else 0
            if silent == GIVE_UP:
                raise EvaluationError(
                    f"Nothing answered {GIVE_UP} blocks in a row, the last time because: {rows[-1].error}; "
                    f"mend that, and the same command asks again what is missing."
                )
        if progress is not None:
            progress(len(block.samples))
    return Progress(answered, sum(len(block.samples) for block in mine) - answered - errors, errors)


def merge(folder: RunFolder, samples: Sequence[Sample], keys: Mapping[tuple[str, str], str]) -> list[Answer]:
    """The answers of all shards, one for each sample that has any, by benchmark, image mode and uid.

    An answer takes the place of a failure; two answers to one sample must be the same.

    Raises:
        EvaluationError: two are not, or there is one that this run did not give.
    """
    found: dict[str, Answer] = {}
    known = set(keys.values())
    for benchmark, mode in sorted({(sample.benchmark, sample.image_mode) for sample in samples}):
        for part in folder.parts(benchmark, mode):
            for row in _rows(part, known):
                before = found.get(row.key)
                if before is None or before.error is not None:
                    found[row.key] = row
                elif row.error is None and row != before:
                    raise EvaluationError(
                        f"{part} answers {row.uid} ({mode}) otherwise than another part of the same run: the "
                        f"shards ran on devices that do not compute alike; run the whole on one kind."
                    )
    ordered = sorted(samples, key=lambda sample: (sample.benchmark, sample.image_mode, sample.uid))
    every = [keys[sample.uid, sample.image_mode] for sample in ordered]
    return [found[key] for key in every if key in found]


def _write(folder: RunFolder, block: Block, shard: Shard, rows: Sequence[Answer], seconds: float) -> None:
    part = folder.answers(block.benchmark, block.image_mode, shard.index)
    try:
        append_lines(part, rows)
        timing = {
            "block": block.number,
            "items": len(rows),
            "seconds": round(seconds, 4),
            "tokens": sum(row.num_tokens for row in rows),
        }
        append_trace(folder.trace(block.benchmark, block.image_mode, shard.index), timing)
    except OSError as error:
        raise EvaluationError(
            f"Answers could not be written to {part} ({error.strerror}): make room there, and the same "
            f"command goes on from the last whole block."
        ) from error


def _clean(
    folder: RunFolder, blocks: Sequence[Block], keys: Mapping[tuple[str, str], str], shard: Shard
) -> Collection[int]:
    """Numbers of the blocks that are whole; of the others nothing is left in this shard's files.

    Nor, where the run had another number of shards, is anything of the blocks that are now this shard's left
    in files of shards that nobody works on: a server that is asked again may answer otherwise.
    """
    known = set(keys.values())
    block_of = {
        keys[sample.uid, sample.image_mode]: block.number for block in blocks for sample in block.samples
    }
    there: Counter[int] = Counter()
    parts = [
        part
        for cell in sorted({(block.benchmark, block.image_mode) for block in blocks})
        for part in folder.parts(*cell)
    ]
    answered = {row.key for part in parts for row in _rows(part, known) if row.error is None}
    there.update(block_of[key] for key in answered)
    whole = {block.number for block in blocks if there[block.number] == len(block.samples)}
    torn = {block.number for block in blocks} - whole
    to_do = {number for number in torn if number % shard.count == shard.index}
    for part in parts:
        owner = part.stem.removeprefix("part-")
        if owner == str(shard.index):
            _leave_out(part, known, block_of, torn)
        elif any(block_of[row.key] in to_do for row in _rows(part, known)):
            with held(folder.lock(owner)) as free:
                if free:
                    _leave_out(part, known, block_of, to_do)
    return whole


def _leave_out(
    part: Path, known: Collection[str], block_of: Mapping[str, int], torn: Collection[int]
) -> None:
    rows = list(_rows(part, known))
    kept = [row for row in rows if block_of[row.key] not in torn]
    if len(kept) < len(rows):
        write_whole(part, "".join(map(to_line, kept)))


def _rows(part: Path, known: Collection[str]) -> Iterator[Answer]:
    for row in read_lines(part, Answer):
        if row.key not in known:
            raise EvaluationError(
                f"{part} holds an answer to {row.uid} that this run did not give: two runs wrote into one "
                f"folder; take that file away, or give --output_path another folder."
            )
        yield row
