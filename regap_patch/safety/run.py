"""One run: a target, some benchmarks in some image modes, a folder of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from regap_patch.errors import EvaluationError
from regap_patch.records import Answer, Sample, answer_key, to_line
from regap_patch.safety.blocks import Block, Shard, answer_blocks, blocks_of, item_seed, merge
from regap_patch.safety.folder import RunFolder, append_trace, held, write_whole
from regap_patch.safety.manifest import Settings, keyed_decoding, keyed_target, make_manifest, settle
from regap_patch.safety.parity import check_parity
from regap_patch.safety.target import Question, Target
from regap_patch.safety.tasks import Asked, Task

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a run's folder when a process is done.

    Attributes:
        folder: of the run.
        items: samples of the run, in every image mode.
        answered: of these, now.
        found: of this shard's, answered before.
        errors: samples that could not be answered.
        missing: samples without an answer, those of other shards included.
        truncated: answers that ran into `max_new_tokens`.
        parity: what `parity.json` says; None where it was not tried.
        left_out: items that the target was fitted on; not among `items`.
    """

    folder: Path
    items: int
    answered: int
    found: int
    errors: int
    missing: int
    truncated: int
    parity: Mapping[str, Any] | None
    left_out: int = 0


def run_evaluation(
    target: Target,
    tasks: Sequence[Task],
    output_path: str | Path,
    settings: Settings | None = None,
    *,
    shard: Shard | None = None,
    reference: Target | None = None,
    started: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Ask a target all items of some benchmarks in some image modes; the same call goes on after a kill.

    Answers lie in blocks of `batch_size` items that depend on nothing but the items: any number of shards and
    any number of kills give the same merged answers. A run with nothing left to do loads no weights; with
    shards it is also how to see that none is missing.

    Args:
        target: what answers. A defended model is one more target.
        tasks: what is asked.
        output_path: folder of the run, see `folder`; a folder is one run.
        settings: how it is asked.
        shard: which part this process does; None for all.
        reference: the same target in float32, for the parity gate, which shard 0 goes through before all
            else; None leaves it out.
        started: what the manifest is to say about the start: path of the model, device.
        progress: told how far it is: what, done, of.

    Raises:
        BenchmarkError: data that is missing, or a picture that does not open.
        EvaluationError: no such target, a folder of another run or that another process writes to, data or
            weights that changed, a full disk, or a target that answers nothing.
    """
    settings, shard = settings or Settings(), shard or Shard()
    folder = RunFolder(Path(output_path))
    watch: Progress = progress or (lambda what, done, of: None)
    asked = {task.name: Asked(task, settings.seed, partial(watch, f"{task.name}: items")) for task in tasks}
    if len(asked) < len(tasks):
        raise EvaluationError("A benchmark was asked for twice in one run: name each once.")
    fingerprint = target.fingerprint()
    samples = {name: one.samples for name, one in asked.items()}
    left_out = {name: one.left_out for name, one in asked.items()}
    every = [sample for rows in samples.values() for sample in rows]
    blocks = blocks_of(every, settings.batch_size)
    mine = sum(len(block.samples) for block in blocks if block.number % shard.count == shard.index)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        watch("answers", done, mine)

    with _on_disk(folder):
        made = make_manifest(fingerprint, settings, samples, started or {}, left_out)
        manifest = settle(folder.manifest, made)
        keys = _keys(manifest, every)
        with _held(folder, shard):
            for name, rows in samples.items():
                write_whole(folder.samples(name), "".join(map(to_line, rows)))
            parity = check_parity(
                folder, target, reference, every, lambda sample: _question(asked, sample), settings, shard
            )
            asking = _Asking(target, asked, keys, settings, folder, shard)
            found = answer_blocks(folder, blocks, keys, shard, asking.answer, advance)
        answers = merge(folder, every, keys)
    errors = sum(answer.error is not None for answer in answers)
    truncated = sum(answer.finish_reason == "length" for answer in answers)
    missing = len(every) - len(answers) + errors
    counts = (len(every), found.answered, found.found, errors, missing, truncated)
    return Summary(folder.root, *counts, parity, sum(map(len, left_out.values())))


def _keys(manifest: Mapping[str, Any], samples: Sequence[Sample]) -> dict[tuple[str, str], str]:
    target, decoding = keyed_target(manifest), keyed_decoding(manifest)
    return {(sample.uid, sample.image_mode): answer_key(sample, target, decoding) for sample in samples}


@contextmanager
def _on_disk(folder: RunFolder) -> Iterator[None]:
    """What the disk refuses is a sentence."""
    try:
        yield
    except OSError as error:
        raise EvaluationError(
            f"The run in {folder.root} cannot read or write {error.filename or 'its files'} "
            f"({error.strerror or error}): make room or mend the rights there, and the same command goes on."
        ) from error


def _question(asked: Mapping[str, Asked], sample: Sample) -> Question:
    """A sample as a target gets it.

    Raises:
        EvaluationError: its picture is no longer the one whose hash the sample has.
    """
    again, picture = asked[sample.benchmark].question(sample.uid, sample.image_mode)
    if again.image_sha256 != sample.image_sha256:
        raise EvaluationError(
            f"The picture {sample.image} of {sample.uid} changed while the run read it: leave the data alone "
            f"and run the same command again."
        )
    return Question(again.prompt, picture, again.meta.get("words"))


@dataclass(frozen=True, slots=True)
class _Asking:
    """A target, and what it is asked: block in, answers out, and how they came about to the trace."""

    target: Target
    asked: Mapping[str, Asked]
    keys: Mapping[tuple[str, str], str]
    settings: Settings
    folder: RunFolder
    shard: Shard

    def answer(self, block: Block) -> list[Answer]:
        questions = [_question(self.asked, sample) for sample in block.samples]
        seeds = [item_seed(sample.uid, self.settings.seed) for sample in block.samples]
        replies = self.target.answer(questions, self.settings.decoding, seeds)
        rows = [
            Answer(
                key=self.keys[sample.uid, sample.image_mode],
                uid=sample.uid,
                image_mode=sample.image_mode,
                defense=self.settings.defense,
                text=reply.text,
                num_tokens=reply.num_tokens,
                finish_reason=reply.finish_reason,
                seed=seed,
                first_token_refusal_prob=reply.first_token_refusal_prob,
                error=reply.error,
            )
            for sample, seed, reply in zip(block.samples, seeds, replies, strict=True)
        ]
        steps = [
            {"key": row.key, "uid": row.uid, "image_mode": row.image_mode, **reply.trace}
            for row, reply in zip(rows, replies, strict=True)
            if reply.trace is not None
        ]
        if steps:
            append_trace(self.folder.steps(block.benchmark, block.image_mode, self.shard.index), *steps)
        return rows


@contextmanager
def _held(folder: RunFolder, shard: Shard) -> Iterator[None]:
    """This process alone writes the files of a shard; a kill lets go of them."""
    with held(folder.lock(shard.index)) as free:
        if not free:
            raise EvaluationError(
                f"Shard {shard.index} of {folder.root} was to be worked on, but another process is at it: "
                f"wait for that one, or give --output_path another folder."
            )
        yield
