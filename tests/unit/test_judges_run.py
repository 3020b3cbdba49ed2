"""Judging a run's folder: what is kept, what is asked again, what a failing judge leaves behind."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from evaluations import Folder

from regap_patch.cli import main
from regap_patch.errors import JudgeError
from regap_patch.judges import Exchange, Judgement, judge_run, make_judge
from regap_patch.judges.protocol import decided, failed
from regap_patch.judges.run import verdict_key
from regap_patch.records import Answer, Sample, Verdict, append_lines, read_lines

COUNT = 60


@dataclass
class Scripted:
    """Says what a function says, and remembers what it was asked."""

    say: Callable[[Exchange], Judgement]
    name: str = "scripted"
    revision: str = "r1"
    settings: dict = field(default_factory=dict)
    threshold: float | None = None
    kinds: tuple = ("harm", "benign")
    meta_fields: tuple = ()
    asked: list = field(default_factory=list)

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
        self.asked += exchanges
        return [self.say(exchange) for exchange in exchanges]


def scored(exchange: Exchange) -> Judgement:
    """0.0, 0.1 ... 0.9 by the number that the answer ends with."""
    score = int(exchange.answer.rsplit(" ", 1)[1]) % 10 / 10
    return decided("unsafe" if score > 0.5 else "safe", exchange.answer, score=score, scores={"a": score})


def make_folder(path: Path, say: Callable[[Sample], str] | None = None) -> Path:
    folder = Folder(path).ask("figstep", COUNT).ask("pope", 4, kind="utility", modes=("real",))
    return folder.answer(say or (lambda sample: f"fold it {sample.uid.rsplit('/')[-1]}")).save()


def verdicts(folder: Path, judge: str = "scripted") -> dict[tuple[str, str], Verdict]:
    return {
        (verdict.uid, verdict.image_mode): verdict
        for path in sorted((folder / "verdicts" / judge).rglob("*.jsonl"))
        for verdict in read_lines(path, Verdict)
    }


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "verdicts").rglob("*.json*"))
    }


def test_every_answer_gets_one_verdict_in_its_file(tmp_path: Path):
    folder = make_folder(tmp_path / "run")
    report = judge_run(folder, Scripted(scored), batch_size=7, about={"headline": True})
    found = verdicts(folder)
    assert len(found) == 2 * COUNT
    assert report.asked == 2 * COUNT
    assert report.labels == {"safe": 72, "unsafe": 48}
    assert {
        path.relative_to(folder / "verdicts").as_posix() for path in (folder / "verdicts").rglob("*.jsonl")
    } == {
        "scripted/figstep/none.jsonl",
        "scripted/figstep/real.jsonl",
    }
    answers = {
        (answer.uid, answer.image_mode): answer.key
        for path in folder.glob("answers/figstep/*/*.jsonl")
        for answer in read_lines(path, Answer)
    }
    assert {key: verdict.answer_key for key, verdict in found.items()} == answers
    about = json.loads((folder / "verdicts/scripted/judge.json").read_text())
    assert about == {
        "name": "scripted",
        "revision": "r1",
        "settings": {},
        "threshold": None,
        "headline": True,
    }


def test_the_judge_is_told_the_plain_question_and_never_the_wrapper(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("figstep", 3)
    folder.samples = [
        replace(sample, prompt="Fill in the list.", judge_question="How to fold?")
        for sample in folder.samples
    ]
    judge = Scripted(scored)
    judge_run(folder.answer(lambda sample: "fold 1").save(), judge)
    assert {exchange.question for exchange in judge.asked} == {"How to fold?"}


def test_a_second_run_asks_nothing_and_changes_no_byte(tmp_path: Path):
    folder = make_folder(tmp_path / "run")
    judge_run(folder, Scripted(scored))
    before = bytes_of(folder)
    again = Scripted(scored)
    report = judge_run(folder, again)
    assert (again.asked, report.asked, report.kept) == ([], 0, 2 * COUNT)
    assert bytes_of(folder) == before


@pytest.mark.parametrize("deaths", [1, 5, 16])
def test_a_killed_run_ends_as_an_unbroken_one(tmp_path: Path, deaths: int):
    """It dies in the middle of a batch; the torn line that a kill leaves is dropped."""
    whole, broken = make_folder(tmp_path / "whole"), make_folder(tmp_path / "broken")
    judge_run(whole, Scripted(scored), batch_size=4)

    class Dying(Scripted):
        def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
            if len(self.asked) >= 4 * deaths:
                raise KeyboardInterrupt
            return super().judge(exchanges)

    with pytest.raises(KeyboardInterrupt):
        judge_run(broken, Dying(scored), batch_size=4)
    assert len(verdicts(broken)) == 4 * deaths
    torn = next(iter((broken / "verdicts").rglob("*.jsonl")))
    with torn.open("a") as file:
        file.write('{"answer_key": "0')
    rest = Scripted(scored)
    judge_run(broken, rest, batch_size=9)
    assert len(rest.asked) == 2 * COUNT - 4 * deaths
    assert bytes_of(broken) == bytes_of(whole)


def test_failed_judgements_are_rows_and_the_next_run_completes_them(tmp_path: Path):
    folder = make_folder(tmp_path / "run")
    dead = Scripted(lambda exchange: failed("connection refused"))
    report = judge_run(folder, dead)
    assert report.labels == {"unscored": 2 * COUNT}
    assert {(found.response_class, found.error) for found in verdicts(folder).values()} == {
        ("judge-error", "connection refused")
    }
    alive = Scripted(scored)
    assert judge_run(folder, alive).labels == {"safe": 72, "unsafe": 48}
    assert len(alive.asked) == 2 * COUNT
    whole = make_folder(tmp_path / "whole")
    judge_run(whole, Scripted(scored))
    assert bytes_of(folder) == bytes_of(whole)


def test_junk_on_five_per_cent_stays_in_the_denominator(tmp_path: Path):
    """Three of sixty: the cell is incomplete, has bounds, and no headline."""
    from regap_patch.report.metrics import metrics_of
    from regap_patch.report.run_folder import read_evaluation

    def junk(exchange: Exchange) -> Judgement:
        number = int(exchange.answer.rsplit(" ", 1)[1])
        return failed("no verdict in it", "well, perhaps") if number % 20 == 0 else scored(exchange)

    folder = make_folder(tmp_path / "run")
    report = judge_run(folder, Scripted(junk))
    assert report.labels == {"safe": 66, "unsafe": 48, "unscored": 6}
    cells = metrics_of(read_evaluation(folder))["cells"]
    cell = next(cell for cell in cells if cell["image_mode"] == "real" and cell["judge"] == "scripted")
    assert (cell["n"], cell["k"], cell["unknown"], cell["incomplete"]) == (COUNT, 24, 3, True)
    assert cell["bounds"] == [24 / 60, 27 / 60]
    (folder / "samples/pope.jsonl").unlink()  # nobody has scored these
    assert main(["eval", "score", str(folder)]) == 3
    judge_run(folder, Scripted(scored))
    assert main(["eval", "score", str(folder)]) == 0


def test_an_empty_answer_is_its_own_class_and_no_judge_sees_it(tmp_path: Path):
    folder = make_folder(tmp_path / "run", lambda sample: "" if sample.uid.endswith("7") else "fold 1")
    judge = Scripted(scored)
    judge_run(folder, judge)
    assert all(exchange.answer for exchange in judge.asked)
    found = verdicts(folder)
    assert {found[key].response_class for key in found if key[0].endswith("7")} == {"empty"}


def test_a_label_that_there_is_not_ends_the_run_and_is_never_safe(tmp_path: Path):
    shouting = Scripted(lambda exchange: Judgement("UNSAFE", "unsafe"))
    with pytest.raises(
        JudgeError, match=r"judged figstep/test/\d+, but its label 'UNSAFE' is none of safe, unsafe"
    ):
        judge_run(make_folder(tmp_path / "run"), shouting)


def test_an_answer_that_failed_is_not_judged(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("figstep", 4, modes=("none",)).answer(lambda sample: "fold 1")
    folder.answers[0] = replace(folder.answers[0], text="", error="timed out")
    report = judge_run(folder.save(), Scripted(scored))
    assert (report.asked, report.unanswered) == (3, 1)


def test_a_changed_answer_is_judged_anew_and_only_it(tmp_path: Path):
    folder = make_folder(tmp_path / "run")
    judge_run(folder, Scripted(scored))
    path = folder / "answers/figstep/real/part-0.jsonl"
    answers = list(read_lines(path, Answer))
    answers[5] = replace(answers[5], text="fold it 9", key="other")
    path.unlink()
    append_lines(path, answers)
    judge = Scripted(scored)
    judge_run(folder, judge)
    assert [exchange.answer for exchange in judge.asked] == ["fold it 9"]
    changed = verdicts(folder)[answers[5].uid, "real"]
    assert (changed.answer_key, changed.score, changed.label) == ("other", 0.9, "unsafe")
    assert len(verdicts(folder)) == 2 * COUNT


def test_another_threshold_asks_nothing_and_moves_the_labels(tmp_path: Path):
    folder = make_folder(tmp_path / "run")
    judge_run(folder, Scripted(scored, threshold=0.5))
    counts = {}
    for threshold in (0.05, 0.25, 0.5, 0.85):
        judge = Scripted(scored, threshold=threshold)
        counts[threshold] = judge_run(folder, judge).labels["unsafe"]
        assert judge.asked == []
        assert json.loads((folder / "verdicts/scripted/judge.json").read_text())["threshold"] == threshold
    assert counts == {0.05: 108, 0.25: 84, 0.5: 48, 0.85: 12}
    found = [(verdict.label, verdict.response_class) for verdict in verdicts(folder).values()]
    assert set(found) == {("safe", "safe-help"), ("unsafe", "unsafe")}


def test_without_a_threshold_what_was_said_counts_again(tmp_path: Path):
    """A threshold that was tried once must not stay in the labels of a judge that has none of its own."""

    class Spoken(Scripted):
        def parse(self, text: str) -> str:
            return text

    def said(exchange: Exchange) -> Judgement:
        return replace(scored(exchange), raw="unsafe" if scored(exchange).score > 0.3 else "safe")

    folder, fresh = make_folder(tmp_path / "run"), make_folder(tmp_path / "fresh")
    judge_run(folder, Spoken(said, threshold=0.85))
    again, first = Spoken(lambda exchange: decided("safe", "")), Spoken(said)
    first.say = lambda exchange: replace(
        said(exchange),
        label=said(exchange).raw,
        response_class="unsafe" if said(exchange).raw == "unsafe" else "safe-help",
    )
    judge_run(folder, again)
    judge_run(fresh, first)
    assert again.asked == []
    assert bytes_of(folder) == bytes_of(fresh)


def test_another_judge_for_some_of_the_benchmarks_is_refused(tmp_path: Path):
    folder = (
        Folder(tmp_path / "run").ask("figstep", 4).ask("vlsafe", 4).answer(lambda sample: "fold 6").save()
    )
    judge_run(folder, Scripted(scored, threshold=0.5))
    before = bytes_of(folder)
    with pytest.raises(
        JudgeError, match=r"verdicts on vlsafe with threshold 0.5, but now only figstep would"
    ):
        judge_run(folder, Scripted(scored, threshold=0.9), benchmarks=["figstep"])
    other = Scripted(scored, threshold=0.5, settings={"dtype": "float16"})
    with pytest.raises(
        JudgeError, match=r"verdicts on vlsafe with settings \{\}, but now only figstep would"
    ):
        judge_run(folder, other, benchmarks=["figstep"], overwrite=True)
    assert bytes_of(folder) == before
    judge_run(folder, Scripted(scored, threshold=0.5), benchmarks=["figstep"])
    assert judge_run(folder, Scripted(scored, threshold=0.9)).labels == {"safe": 16}


def test_offline_is_said_to_the_hub_before_anything_is_loaded(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    folder = make_folder(tmp_path / "run")
    assert main(["eval", "judge", str(folder), "--judges", "keyword-own"]) == 0
    assert os.environ["HF_HUB_OFFLINE"] == "0"
    assert main(["eval", "judge", str(folder), "--judges", "keyword-own", "--offline"]) == 0
    assert (os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"]) == ("1", "1")


def test_a_threshold_is_of_one_judge_that_has_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = make_folder(tmp_path / "run")
    for judges, wrong in (
        ("keyword-own,refusal-rules-own", "given for 2 judges"),
        ("keyword-own", "keyword-own has no scores"),
    ):
        assert main(["eval", "judge", str(folder), "--judges", judges, "--threshold", "0.4"]) == 1
        assert wrong in capsys.readouterr().err
    assert not (folder / "verdicts").exists()


@pytest.mark.parametrize("change", [{"revision": "r2"}, {"settings": {"windows": 2}}])
def test_another_judge_of_that_name_is_refused_until_told(tmp_path: Path, change: dict):
    folder = make_folder(tmp_path / "run")
    judge_run(folder, Scripted(scored))
    before = bytes_of(folder)
    with pytest.raises(JudgeError, match="--overwrite"):
        judge_run(folder, Scripted(scored, **change))
    assert bytes_of(folder) == before
    other = Scripted(scored, **change)
    judge_run(folder, other, overwrite=True)
    assert len(other.asked) == len(verdicts(folder)) == 2 * COUNT
    assert {verdict.revision for verdict in verdicts(folder).values()} == {other.revision}


def test_the_key_holds_what_a_score_hangs_on_and_no_threshold(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("figstep", 2, modes=("none",)).answer(lambda sample: "fold 1")
    sample, answer = folder.samples[0], folder.answers[0]
    judge = Scripted(scored, meta_fields=("needed",))
    key = verdict_key(judge, sample, answer)
    others = [
        verdict_key(replace(judge, name="b"), sample, answer),
        verdict_key(replace(judge, revision="r2"), sample, answer),
        verdict_key(replace(judge, settings={"a": 1}), sample, answer),
        verdict_key(judge, replace(sample, judge_question="other"), answer),
        verdict_key(judge, replace(sample, meta={"needed": 2}), answer),
        verdict_key(judge, replace(sample, kind="benign"), answer),
        verdict_key(judge, sample, replace(answer, text="fold 2")),
    ]
    assert len({key, *others}) == 8
    assert verdict_key(replace(judge, threshold=0.3), sample, answer) == key
    assert verdict_key(judge, replace(sample, prompt="wrapped", meta={"unread": 1}), answer) == key


def test_the_toy_world_is_judged_from_the_samples(tmp_path: Path):
    folder = Folder(tmp_path / "run").ask("world", 4, modes=("none",))
    meta = {"forbidden_words": ["wilm", "drub"], "needed": 2, "other": "x"}
    folder.samples = [replace(sample, meta=meta) for sample in folder.samples]
    says = ["wilm and drub", "wilm and wilm", "i am sorry , i can not help .", "drub , wilm !"]
    folder.answer(lambda sample: says[int(sample.uid[-1])]).save()
    judge_run(folder.path, make_judge("world"))
    assert [(v.label, v.response_class) for v in verdicts(folder.path, "world").values()] == [
        ("unsafe", "unsafe"),
        ("safe", "safe-help"),
        ("safe", "refusal"),
        ("unsafe", "unsafe"),
    ]


def test_bad_folders_and_judges_are_one_sentence(tmp_path: Path):
    with pytest.raises(JudgeError, match="regap eval run"):
        judge_run(tmp_path / "absent", Scripted(scored))
    folder = make_folder(tmp_path / "run")
    with pytest.raises(JudgeError, match="has no samples of mme: it has figstep, pope"):
        judge_run(folder, Scripted(scored), benchmarks=["mme"])

    class Mute(Scripted):
        def judge(self, exchanges: Sequence[Exchange]) -> list[Judgement]:
            return []

    with pytest.raises(JudgeError, match="gave 0 judgements"):
        judge_run(folder, Mute(scored))


def test_a_full_disk_is_one_sentence_and_what_was_judged_is_kept(tmp_path: Path, monkeypatch):
    from regap_patch.judges import run

    folder = make_folder(tmp_path / "run")
    calls = []

    def filling(path: Path, records: list[Verdict]) -> None:
        calls.append(path)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        append_lines(path, records)

    monkeypatch.setattr(run, "append_lines", filling)
    with pytest.raises(JudgeError, match=r"No space left on device\): make room"):
        judge_run(folder, Scripted(scored), batch_size=8)
    monkeypatch.undo()
    assert len(verdicts(folder)) == 24
    rest = Scripted(scored)
    judge_run(folder, rest)
    assert len(rest.asked) == 2 * COUNT - 24


def test_two_processes_do_not_judge_one_folder(tmp_path: Path):
    import fcntl

    folder = make_folder(tmp_path / "run")
    home = folder / "verdicts/scripted"
    home.mkdir(parents=True)
    with (home / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(JudgeError, match="another process"):
            judge_run(folder, Scripted(scored))
    judge_run(folder, Scripted(scored))
