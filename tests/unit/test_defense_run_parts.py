"""What a defended run is made of: items left out, time with and without, and what its trace says."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import pytest
from evaluation_items import make_items

from regap_patch.commands import latency as latency_module
from regap_patch.commands.defended import DefendedTarget, Untimed
from regap_patch.commands.eval_defense import stack_of
from regap_patch.commands.latency import BATCHES, Latency
from regap_patch.defenses import FittedItem, make_stack
from regap_patch.errors import BenchmarkError, ConfigError
from regap_patch.report.defense_trace import defense_sentences, read_defense_trace
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.fitted import Fitted
from regap_patch.safety.target import Decoding, Question, Reply
from regap_patch.safety.tasks import Asked, Task


def items(tmp_path):
    root = make_items(tmp_path / "custom", 4)
    return root, list(custom.samples(root))


def test_an_item_is_known_by_its_uid_its_words_or_its_words_and_picture(tmp_path):
    root, (first, second, *_) = items(tmp_path)
    own = hashlib.sha256((root / first.image).read_bytes()).hexdigest()
    other = hashlib.sha256((root / second.image).read_bytes()).hexdigest()
    spaced = first.prompt.replace(" ", "\n ")

    def holds(item: FittedItem, sample=first) -> bool:
        return Fitted([item]).holds(sample, root)

    assert holds(FittedItem(first.uid, "other words"))
    assert not holds(FittedItem(second.uid, "other words"))
    assert holds(FittedItem("", spaced))
    assert holds(FittedItem("", first.prompt, own))
    assert not holds(FittedItem("", first.prompt, other)), "the same words to another picture"
    assert not holds(FittedItem("", first.prompt + "?"))
    assert not holds(FittedItem("", "")), "no uid and no words are nobody's"
    wrapped = replace(first, prompt="Fill the list.", judge_question="How is a blorp folded?")
    assert holds(FittedItem("", "How is a blorp folded?"), wrapped), "the plain intent counts"
    assert not holds(FittedItem("", "Fill the list.", other), wrapped)


def test_what_is_left_out_is_left_out_in_every_mode_and_changes_no_other_item(tmp_path):
    root, samples = items(tmp_path)
    task = Task(custom, root, ("none", "noise", "irrelevant", "real"))
    whole = Asked(task, seed=3)
    fitted = Fitted([FittedItem("", samples[1].prompt)])
    part = Asked(replace(task, fitted=fitted), seed=3)
    assert (whole.left_out, part.left_out) == ((), (samples[1].uid,))
    assert list(part.samples) == [sample for sample in whole.samples if sample.uid != samples[1].uid]
    every = Fitted([FittedItem("", sample.prompt) for sample in samples])
    with pytest.raises(
        BenchmarkError, match=r"custom was asked for, but the defences were fitted on all of its 4"
    ):
        Asked(replace(task, fitted=every), seed=3)


def test_batches_are_timed_in_turns_and_then_left_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(latency_module.time, "perf_counter", lambda: now[0])
    calls = []

    def taking(name: str, seconds: float):
        def ask():
            calls.append(name)
            now[0] += seconds
            return [Reply(name, 7, "stop")] * 2

        return ask

    timed = Latency("ecso")
    assert timed.to_dict() is None
    for questions in ([Question("a", b"p"), Question("b", b"p")], [Question("a"), Question("b")]):
        for _ in range(BATCHES):
            assert timed.wants(questions)
            assert timed.timed(questions, taking("none", 2.0), taking("on", 5.0))[0].text == "on"
        assert not timed.wants(questions)
    assert calls[:5] == ["none", "on", "none", "none", "on"], "warmed once, then each is first in turn"
    timed.spent({"ecso": 1.0, "model": 3.0})
    found = timed.to_dict()
    for kind in ("with a picture", "text alone"):
        row = found["kinds"][kind]
        assert (row["ratios"], row["items"]) == ([2.5] * BATCHES, 2 * BATCHES)
        assert (row["seconds_none"], row["seconds_defended"]) == (2.0 * BATCHES, 5.0 * BATCHES)
        assert (row["tokens_none"], row["tokens_defended"]) == (14 * BATCHES, 14 * BATCHES)
    assert found["share_of_time"] == {"ecso": 0.25, "model": 0.75}


def test_seconds_of_the_parity_gate_are_not_the_runs(monkeypatch):
    def answer(questions, decoding, seeds):
        return [Reply("said", 1, "stop") for _ in questions]

    latency, spent = Latency("self_reminder"), []
    monkeypatch.setattr(latency, "spent", spent.append)
    target = SimpleNamespace(fingerprint=dict, answer=answer)
    made = DefendedTarget(target, make_stack("self_reminder"), latency)
    for asking, count in ((Untimed(made), 0), (made, 1)):
        (reply,) = asking.answer([Question("a")], Decoding(), [0])
        assert reply.trace["defenses"]["self_reminder"]["fired"]
        assert len(spent) == count


def test_a_new_run_prepares_its_stack_before_it_says_what_it_is():
    done = []
    target = SimpleNamespace(fingerprint=lambda: {"kind": "script"}, close=lambda: done.append("close"))
    stack = make_stack("self_reminder")
    stack.prepare = lambda model: done.append("prepare")
    for options, expected in (
        ({}, []),
        ({"new": True}, ["prepare"]),
        ({"new": True, "waits": True}, ["prepare", "close"]),
    ):
        done.clear()
        made = DefendedTarget(target, stack, **options)
        assert made.fingerprint() == made.fingerprint()
        assert done == expected, "once, and the weights go where another's come first"


def test_a_comma_within_a_setting_is_its_own():
    given = "adashield_s.place=after, cmrm.of=sample,cmrm.layers=1,4-6,cmrm.alpha=2,"
    stack = stack_of(Namespace(defense="cmrm+adashield_s", defense_args=given))
    shield, cmrm = stack.defenses
    assert (shield.place, cmrm.of, cmrm.layers, cmrm.alpha) == ("after", "sample", "1,4-6", 2.0)
    with pytest.raises(ConfigError, match="The setting 'alpha' is of no defence"):
        stack_of(Namespace(defense="cmrm", defense_args="cmrm.of=sample,alpha=2"))


def test_a_trace_is_read_with_its_last_word_on_each_answer(tmp_path):
    def line(key: str, mode: str, fired: bool, generations: int) -> str:
        notes = {"ecso": {"fired": fired}}
        return json.dumps({"key": key, "image_mode": mode, "defenses": notes, "generations": generations})

    parts = {
        "none/steps-0.jsonl": [("a", False, 1), ("b", False, 1)],
        "real/steps-0.jsonl": [("c", False, 2), ("d", True, 4), ("c", True, 4)],
    }
    for name, rows in parts.items():
        path = tmp_path / "trace/custom" / name
        path.parent.mkdir(parents=True)
        mode = name.partition("/")[0]
        path.write_text(
            "".join(line(key, mode, fired, count) + "\n" for key, fired, count in rows) + '{"torn'
        )
    for shard, ratios in ((0, [1.0, 2.0]), (1, [30.0])):
        kinds = {"with a picture": {"items": 4, "ratios": ratios}}
        (tmp_path / f"trace/latency-{shard}.json").write_text(json.dumps({"kinds": kinds}))
    found = read_defense_trace(tmp_path)
    assert found["fired"] == {"ecso": {"none": [0, 2], "real": [2, 2]}}
    assert found["generations"] == 2.5
    assert found["latency"]["with a picture"]["ratio"] == 2.0
    assert defense_sentences(found) == [
        "The defence ecso fired on 2 of 4 answers (none 0 of 2, real 2 of 2).",
        "An answer takes this many times the time of the same without defences: 2.00 with a picture "
        "(1.00 to 30.00, 8 answers); 2.50 generations an answer.",
    ]
    assert defense_sentences(read_defense_trace(tmp_path / "nothing")) == []
