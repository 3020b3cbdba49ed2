"""Judging what a run has answered: one file of verdicts for each judge, benchmark and image mode.

What is there and still right is kept, failed judgements are asked again, verdicts of answers that changed are
dropped. Each batch is on the disk before the next begins; a finished file is sorted as its samples are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from regap_patch.errors import JudgeError
from regap_patch.judges.protocol import Exchange, Judge, Judgement, judge_all, relabelled
from regap_patch.records import SCHEMA, Answer, Sample, Verdict, append_lines, digest, read_lines, to_line

Key = tuple[str, str]  # uid, image mode


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """What a run of a judge did.

    Attributes:
        judge: its name.
        labels: of all verdicts that are there now.
        asked: judgements made now.
        kept: verdicts that were there and still hold.
        unanswered: samples without an answer: they have no verdict.
    """

    judge: str
    labels: Mapping[str, int] = field(default_factory=dict)
    asked: int = 0
    kept: int = 0
    unanswered: int = 0


def verdict_key(judge: Judge, sample: Sample, answer: Answer) -> str:
    """What makes a verdict this verdict: thresholds are not in it, for scores outlive them."""
    text = hashlib.sha256(answer.text.encode()).hexdigest()
    read = {name: sample.meta.get(name) for name in judge.meta_fields}
    asked = (sample.judge_question, sample.kind, read)
    return digest([SCHEMA, text, asked, judge.name, judge.revision, dict(judge.settings)])


def judge_run(
    folder: str | Path,
    judge: Judge,
    *,
    batch_size: int = 8,
    benchmarks: Sequence[str] | None = None,
    about: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> JudgeReport:
    """Judge all answers of a run's folder that lack this judge's verdict.

    Args:
        folder: of the run: `samples/` and `answers/` are read, `verdicts/<judge>/` is written.
        judge: who judges.
        batch_size: exchanges at a time.
        benchmarks: only these.
        about: what else `verdicts/<judge>/judge.json` says: source, licence, measure.
        overwrite: verdicts of another revision of this judge are made anew instead of refused.
        progress: told (file, done, all) after each batch.

    Raises:
        JudgeError: no such folder, a judge of that name with another revision or settings was here (with
            another threshold too, where `benchmarks` leaves some of its verdicts out), or another process is
            judging.
        RecordsError: a line that is no record.
    """
    root = Path(folder)
    files = sorted((root / "samples").glob("*.jsonl"))
    if benchmarks is not None:
        unknown = set(benchmarks) - {path.stem for path in files}
        if unknown:
            raise JudgeError(
                f"{root} has no samples of {', '.join(sorted(unknown))}: it has "
                f"{', '.join(path.stem for path in files) or 'none'}."
            )
        files = [path for path in files if path.stem in benchmarks]
    if not files:
        raise JudgeError(
            f"{root} holds no samples/*.jsonl to judge: name the output folder of `regap eval run`."
        )
    home = root / "verdicts" / judge.name
    with _alone(home):
        _settle_identity(home, judge, about or {}, overwrite, {path.stem for path in files})
        totals: Counter[str] = Counter()
        labels: Counter[str] = Counter()
        for path in files:
            for mode, samples in _by_mode(path, judge).items():
                done = _ModeFile(root, home, judge, path.stem, mode, samples)
                done.judge(batch_size, progress)
                totals.update(asked=done.asked, kept=done.kept, unanswered=done.unanswered)
                labels.update(verdict.label for verdict in done.verdicts.values())
    return JudgeReport(judge.name, dict(labels), totals["asked"], totals["kept"], totals["unanswered"])


class _ModeFile:
    """The verdicts of one benchmark in one image mode."""

    def __init__(
        self, root: Path, home: Path, judge: Judge, benchmark: str, mode: str, samples: Sequence[Sample]
    ) -> None:
        self.path = home / benchmark / f"{mode}.jsonl"
        self.of = judge
        answers = _answers(root / "answers" / benchmark / mode)
        self.work: dict[Key, tuple[Sample, Answer]] = {
            (sample.uid, sample.image_mode): (sample, answers[sample.uid])
            for sample in samples
            if sample.uid in answers
        }
        self.unanswered = len(samples) - len(self.work)
        self.verdicts: dict[Key, Verdict] = {}
        self.asked = self.kept = 0

    def judge(self, batch_size: int, progress: Callable[[str, int, int], None] | None) -> None:
        """Bring the file up to date."""
        self._keep()
        pending = [key for key in self.work if key not in self.verdicts]
        exchanges = [self._exchange(key) for key in pending]
        for batch in judge_all(self.of, exchanges, batch_size):
            made = [self._verdict(pending[index], judgement) for index, judgement in batch]
            _append(self.path, made)
            self.verdicts.update(((verdict.uid, verdict.image_mode), verdict) for verdict in made)
            self.asked += len(made)
            if progress is not None:
                progress(f"{self.path.parent.name}/{self.path.stem}", self.asked, len(pending))
        if pending:
            self._write()

    def _keep(self) -> None:
        """Of what is there: the verdicts that still hold, under the threshold of today."""
        if not self.path.is_file():
            return
        for verdict in read_lines(self.path, Verdict):
            key: Key = verdict.uid, verdict.image_mode
            if key not in self.work or verdict.label == "unscored":
                continue
            sample, answer = self.work[key]
            if verdict.key != verdict_key(self.of, sample, answer):
                continue
            fields = {name: getattr(verdict, name) for name in _JUDGEMENT}
            self.verdicts[key] = self._verdict(key, Judgement(**fields))
        self.kept = len(self.verdicts)
        self._write()

    def _exchange(self, key: Key) -> Exchange:
        sample, answer = self.work[key]
        meta = {name: sample.meta[name] for name in self.of.meta_fields if name in sample.meta}
        return Exchange(sample.judge_question, answer.text, sample.kind, meta)

    def _verdict(self, key: Key, judgement: Judgement) -> Verdict:
        sample, answer = self.work[key]
        judgement = relabelled(self.of, judgement, answer.text)
        try:
            return Verdict(
                verdict_key(self.of, sample, answer),
                answer.key,
                sample.uid,
                sample.image_mode,
                self.of.name,
                self.of.revision,
                **{name: getattr(judgement, name) for name in _JUDGEMENT},
            )
        except ValueError as error:
            raise JudgeError(
                f"{self.of.name} judged {sample.uid}, but its {error}: mend the judge; nothing was counted."
            ) from error

    def _write(self) -> None:
        """All of it, in the order of the samples, at once."""
        text = "".join(to_line(self.verdicts[key]) for key in self.work if key in self.verdicts)
        if not self.path.is_file() or self.path.read_text(encoding="utf-8") != text:
            _write_whole(self.path, text)


_JUDGEMENT = tuple(Judgement.__dataclass_fields__)


def _by_mode(path: Path, judge: Judge) -> dict[str, list[Sample]]:
    """The samples of a benchmark that this judge judges, once each."""
    found: dict[str, dict[str, Sample]] = {}
    for sample in read_lines(path, Sample):
        if sample.kind in judge.kinds:
            found.setdefault(sample.image_mode, {})[sample.uid] = sample
    return {mode: list(samples.values()) for mode, samples in found.items()}


def _answers(folder: Path) -> dict[str, Answer]:
    """Of all shards; what failed is no answer."""
    found: dict[str, Answer] = {}
    for path in sorted(folder.glob("part-*.jsonl")):
        for answer in read_lines(path, Answer):
            if answer.error is None:
                found.setdefault(answer.uid, answer)
    return found


def _settle_identity(
    home: Path, judge: Judge, about: Mapping[str, Any], overwrite: bool, benchmarks: Collection[str]
) -> None:
    """`judge.json` says who judges here; another judge of that name is refused.

    So is any change for only some of the benchmarks, thresholds included: one file cannot name two.
    """
    path = home / "judge.json"
    who = {"name": judge.name, "revision": judge.revision, "settings": dict(judge.settings)}
    now = who | {"threshold": judge.threshold}
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else now
    changed = [name for name, value in now.items() if before.get(name) != value]
    if changed and changed[0] in who and not overwrite:
        name = changed[0]
        raise JudgeError(
            f"{home} holds verdicts of {judge.name} with {name} {before.get(name)}, but now it has "
            f"{now[name]}: pass --overwrite to judge all answers anew, or move that folder away."
        )
    others = sorted({file.parent.name for file in home.glob("*/*.jsonl")} - set(benchmarks))
    if changed and others:
        name = changed[0]
        raise JudgeError(
            f"{home} holds verdicts on {', '.join(others)} with {name} {before.get(name)}, but now only "
            f"{', '.join(sorted(benchmarks))} would have {now[name]}: leave --tasks out, or keep the {name}."
        )
    text = json.dumps(now | dict(about), indent=1, ensure_ascii=False) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        _write_whole(path, text)


def _append(path: Path, made: Sequence[Verdict]) -> None:
    try:
        append_lines(path, made)
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: OSError) -> JudgeError:
    return JudgeError(
        f"{path} was to be written, but that failed ({error.strerror or error}): make room, and the same "
        f"command goes on; what was judged before is kept."
    )


def _write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process at a time; a killed one leaves no lock behind."""
    import fcntl

    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JudgeError(
                f"{home} is being judged by another process: wait for it, or stop it, then run this again."
            ) from error
        yield


def about_of(preset: Any) -> dict[str, Any]:
    """What a preset adds to `judge.json`."""
    described = asdict(preset)
    return {name: described[name] for name in ("source", "licence", "measure", "headline", "faults")}
