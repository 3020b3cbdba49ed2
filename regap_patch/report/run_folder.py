"""An evaluation's folder, read: what was asked, what was answered, what judges say of that very answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regap_patch.errors import ReportError
from regap_patch.records import Answer, Sample, Verdict, read_lines
from regap_patch.report.json_files import read_json

MANIFEST, PARITY, JUDGE = "manifest.json", "parity.json", "judge.json"
_REMEDY = "name the output folder of `regap eval run`"
Key = tuple[str, str]  # uid, image mode


@dataclass(frozen=True, slots=True)
class Item:
    """One sample in one image mode.

    Attributes:
        sample: what was asked.
        answer: None where there is none yet.
        verdicts: by judge; those of another text than `answer` are left out.
    """

    sample: Sample
    answer: Answer | None
    verdicts: Mapping[str, Verdict]

    @property
    def key(self) -> Key:
        """What pairs it with the same item elsewhere: uid and image mode."""
        return self.sample.uid, self.sample.image_mode

    @property
    def benchmark(self) -> str:
        """As tables call it; items that an adapter sets apart by `meta["block"]` are counted apart."""
        block = self.sample.meta.get("block")
        return f"{self.sample.benchmark}, {block}" if block else self.sample.benchmark


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that a folder holds.

    Attributes:
        folder: where it lies.
        manifest: how the answers were made.
        parity: of answers at batch 1 and N, without the answers; None where that was not tried.
        defense: names of the defence stack, "" for none.
        items: sorted by benchmark, image mode and uid.
        judges: revision of each judge.
        about: what `judge.json` says of each judge: settings, threshold, measure, whether it may be quoted.
        judged: (judge, benchmark, kind) with a verdict.
        stale: verdicts of answers that are no longer there.
        inputs: SHA-256 over all files that were read.
    """

    folder: Path
    manifest: Mapping[str, Any]
    parity: Mapping[str, Any] | None
    defense: str
    items: tuple[Item, ...]
    judges: Mapping[str, str]
    about: Mapping[str, Mapping[str, Any]]
    judged: frozenset[tuple[str, str, str]]
    stale: int
    inputs: str

    @property
    def name(self) -> str:
        """How tables call it."""
        return self.folder.resolve().name

    def setting(self, name: str) -> Any:
        """What the manifest says of it, at its top or in its `target`; None without."""
        target = self.manifest.get("target")
        inner = target if isinstance(target, Mapping) else {}
        return self.manifest.get(name, inner.get(name))

    def may_be_quoted(self, judge: str) -> bool:
        """Whether a rate under this judge may stand as a result; under lists of keywords it may not."""
        return bool(self.about.get(judge, {}).get("headline", True))


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read samples, answers and verdicts.

    Raises:
        ReportError: it is no such folder, or two answers or two revisions of a judge contradict each other.
        RecordsError: a line that is no record.
    """
    root = Path(folder)
    manifest = read_json(root / MANIFEST, "the settings of a run", _REMEDY)
    samples = [sample for path in _files(root, "samples/*.jsonl") for sample in read_lines(path, Sample)]
    if not samples:
        raise ReportError(
            f"{root} was to be read as an evaluation, but it has no line in samples/*.jsonl: name the output "
            f"folder of `regap eval run`."
        )
    answers = _answers(root)
    verdicts, stale = _verdicts(root, answers)
    defenses = {answer.defense for answer in answers.values()} or {str(manifest.get("defense") or "")}
    if len(defenses) > 1:
        named = ", ".join(map(repr, sorted(defenses)))
        raise ReportError(
            f"{root} holds answers under {len(defenses)} defence stacks ({named}), but a folder is one run: "
            f"give each its own folder."
        )
    items = sorted(_items(root, samples, answers, verdicts), key=_order)
    judges = _revisions(root, items)
    return Evaluation(
        root,
        manifest,
        _parity(root / PARITY),
        defenses.pop(),
        tuple(items),
        judges,
        {judge: _about(root / "verdicts" / judge / JUDGE) for judge in judges},
        frozenset((judge, item.benchmark, item.sample.kind) for item in items for judge in item.verdicts),
        stale,
        _digest(root),
    )


def _about(path: Path) -> dict[str, Any]:
    return read_json(path, "what a judge is", "judge again") if path.is_file() else {}


def _parity(path: Path) -> dict[str, Any] | None:
    """Which items flipped; what was said stays in the file."""
    if not path.is_file():
        return None
    found = read_json(path, "the parity of a run", _REMEDY)
    flips = found.get("flips") or []
    return found | {"flips": [flip.get("uid") if isinstance(flip, dict) else flip for flip in flips]}


def _order(item: Item) -> tuple[str, str, str]:
    return item.sample.benchmark, item.sample.image_mode, item.sample.uid


def _files(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern))


def _answers(root: Path) -> dict[Key, Answer]:
    """All shards as one: an answer takes the place of a failure, two answers must be the same."""
    found: dict[Key, Answer] = {}
    for path in _files(root, "answers/*/*/part-*.jsonl"):
        for answer in read_lines(path, Answer):
            key = answer.uid, answer.image_mode
            before = found.get(key)
            if before is None or before.error is not None:
                found[key] = answer
            elif answer.error is None and answer != before:
                raise ReportError(
                    f"{path} answers {answer.uid} ({answer.image_mode}) otherwise than another part of the "
                    f"same run: two runs wrote into {root}; remove one's parts, or evaluate into a new "
                    f"folder."
                )
    return found


def _verdicts(root: Path, answers: Mapping[Key, Answer]) -> tuple[dict[str, dict[Key, Verdict]], int]:
    """By judge and item, the last that judges the answer there; a failure never hides a verdict."""
    found: dict[str, dict[Key, Verdict]] = {}
    stale = 0
    for path in _files(root, "verdicts/*/*/*.jsonl"):
        for verdict in read_lines(path, Verdict):
            key = verdict.uid, verdict.image_mode
            answer = answers.get(key)
            if answer is None or answer.key != verdict.answer_key:
                stale += 1
                continue
            of_judge = found.setdefault(path.parts[-3], {})
            if key not in of_judge or verdict.label != "unscored" or of_judge[key].label == "unscored":
                of_judge[key] = verdict
    return found, stale


def _items(
    root: Path,
    samples: Iterable[Sample],
    answers: Mapping[Key, Answer],
    verdicts: Mapping[str, Mapping[Key, Verdict]],
) -> Iterator[Item]:
    seen: dict[Key, Sample] = {}
    for sample in samples:
        key = sample.uid, sample.image_mode
        if key in seen:
            if seen[key] != sample:
                raise ReportError(
                    f"{root}/samples has two different samples {sample.uid} ({sample.image_mode}): two runs "
                    f"wrote into it; evaluate into a new folder."
                )
            continue
        seen[key] = sample
        of_item = {judge: by_key[key] for judge, by_key in verdicts.items() if key in by_key}
        yield Item(sample, answers.get(key), of_item)


def _revisions(root: Path, items: Iterable[Item]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in items:
        for judge, verdict in item.verdicts.items():
            if found.setdefault(judge, verdict.revision) != verdict.revision:
                raise ReportError(
                    f"{root}/verdicts/{judge} mixes the revisions {found[judge]} and {verdict.revision}: "
                    f"remove that folder and judge again."
                )
    return dict(sorted(found.items()))


def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    answers, verdicts = "answers/*/*/part-*.jsonl", "verdicts/*/*/*.jsonl"
    for pattern in (MANIFEST, PARITY, "samples/*.jsonl", answers, f"verdicts/*/{JUDGE}", verdicts):
        for path in _files(root, pattern):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
