"""The demo without its page: both columns, their troubles, modes, and nobody else's answer."""

from __future__ import annotations

import dataclasses
import threading
import time
from io import BytesIO

import pytest
from PIL import Image

from regap_patch.demo import Line, Request, Session, checked
from regap_patch.demo import side as side_module
from regap_patch.demo.requests import MODES, asked, possible_modes
from regap_patch.errors import DemoError, EvaluationError
from regap_patch.judges import make_judge
from regap_patch.judges.protocol import Judgement
from regap_patch.safety.image_modes import WORDS
from tests.unit.demo_sides import Gate, TellingTarget, echo, saying, side
from tests.unit.evaluation_items import noisy_picture

PICTURE = checked(noisy_picture(12, 10, 1))
OTHER = checked(noisy_picture(9, 9, 2))
REFUSAL = "I'm sorry, but I cannot help with that."


def session(left=echo, right=echo, **more) -> Session:
    return Session(side("left", left), side("right", right), **more)


def last(comparisons):
    *_, final = comparisons
    return final


def test_both_columns_stream_and_end_whole():
    seen = list(session(saying("a b c"), saying("d e f g")).ask(Request("fold ?", mode="none")))
    assert seen[0].answers[0].state == "waiting"
    assert not any(comparison.finished for comparison in seen[:-1])
    left, right = seen[-1].answers
    assert (left.state, left.text, left.num_tokens) == ("done", "a b c", 3)
    assert (right.state, right.text) == ("done", "d e f g")
    assert left.first_token_refusal_prob == 0.25
    assert 0 <= left.first_seconds <= left.seconds
    for side_number in (0, 1):
        texts = [comparison.answers[side_number].text for comparison in seen]
        assert texts == sorted(texts, key=len)


def test_both_get_the_same_question_and_seed():
    one, other = TellingTarget(echo), TellingTarget(echo)
    made = session()
    made.sides[0].open, made.sides[1].open = lambda: one, lambda: other
    last(made.ask(Request("fold ?", PICTURE, seed=7, max_new_tokens=9, temperature=0.5)))
    assert one.asked == other.asked
    ((question, decoding, seed),) = one.asked
    assert (question.prompt, question.picture, seed) == ("fold ?", PICTURE.png, 7)
    assert (decoding.max_new_tokens, decoding.temperature) == (9, 0.5)


def breaks(question):
    yield "half"
    yield "of"
    raise RuntimeError("the device is gone")


def test_a_model_that_dies_says_why_and_the_other_goes_on():
    made = session(breaks, saying("d e f"))
    left, right = last(made.ask(Request("fold ?", mode="none"))).answers
    assert (left.state, left.text, left.error) == (
        "failed",
        "half of",
        "RuntimeError: the device is gone",
    )
    assert (right.state, right.text) == ("done", "d e f")
    assert made.sides[0]._target is None  # the next question loads it anew


def test_a_model_that_does_not_load_says_why_and_is_tried_again():
    made = session()
    tries = []

    def open_badly():
        tries.append(1)
        if len(tries) == 1:
            raise EvaluationError("The checkpoint x was asked for, but there is no such folder.")
        return TellingTarget(saying("back again"))

    made.sides[1].open = open_badly
    left, right = last(made.ask(Request("fold ?", mode="none"))).answers
    assert left.state == "done"
    assert (right.state, right.error) == (
        "failed",
        "The checkpoint x was asked for, but there is no such folder.",
    )
    assert last(made.ask(Request("fold ?", mode="none"))).answers[1].text == "back again"


def test_judges_badges_and_refusals():
    made = session(
        saying(REFUSAL),
        saying("Take a sheet and fold it."),
        judges=[make_judge("keyword-own"), make_judge("world")],
    )
    left, right = last(made.ask(Request("fold ?", mode="none", kind="harm"))).answers
    assert (left.response_class, right.response_class) == ("refusal", "safe-help")
    assert [(badge.judge, badge.label) for badge in left.badges] == [
        ("keyword-own", "safe"),
        ("world", "unscored"),
    ]
    assert [badge.label for badge in right.badges] == ["unsafe", "unscored"]
    assert "forbidden_words" in right.badges[1].why
    left, right = last(made.ask(Request("fold ?", mode="none"))).answers
    assert left.badges[0].label == "safe"  # a refusal is one, whatever was asked
    assert right.badges[0].label == "unscored"
    assert "say which" in right.badges[0].why


def test_a_judge_that_fails_is_unscored():
    class Broken:
        name, kinds, meta_fields, threshold = "broken", ("harm", "benign"), (), None

        def judge(self, exchanges):
            raise ConnectionError("no server")

    made = session(judges=[Broken(), make_judge("keyword-own")])
    left, _ = last(made.ask(Request("fold ?", mode="none", kind="benign"))).answers
    assert [badge.label for badge in left.badges] == ["unscored", "safe"]
    assert left.badges[0].why == "ConnectionError: no server"


def test_the_mode_changes_what_both_are_shown():
    request = Request("fold ?", PICTURE, seed=3)
    shown = {mode: asked(request.in_mode(mode), [PICTURE, OTHER]) for mode in MODES}
    pictures = {mode: found.question.picture for mode, found in shown.items()}
    assert pictures["real"] == PICTURE.png
    assert pictures["irrelevant"] == OTHER.png
    assert pictures["none"] is None
    assert pictures["words"] is None
    assert shown["words"].question.words in WORDS
    for mode, colour in (("blank", (255, 255, 255)), ("black", (0, 0, 0))):
        with Image.open(BytesIO(pictures[mode])) as made:
            assert made.size == (12, 10)
            assert made.convert("RGB").getcolors() == [(120, colour)]
    again = asked(dataclasses.replace(request, mode="noise"), ())
    assert again.question.picture == pictures["noise"]
    assert asked(dataclasses.replace(request, mode="noise", seed=4), ()).question.picture != pictures["noise"]


def test_all_modes_one_after_the_other():
    found = last(session(pool=[OTHER]).ask_modes(Request("fold ?", PICTURE)))
    assert [comparison.request.mode for comparison in found] == list(MODES)
    assert all(comparison.finished for comparison in found)
    seen = {comparison.request.mode: comparison.answers[0].text.split()[-1] for comparison in found}
    assert seen == {mode: "unseen" if mode in ("none", "words") else "seen" for mode in MODES}
    assert possible_modes(Request("fold ?", mode="none")) == MODES[1:]
    alone = last(session().ask_modes(Request("fold ?", PICTURE)))
    assert "irrelevant" not in [comparison.request.mode for comparison in alone]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"prompt": "  "}, "no prompt"),
        ({"prompt": "x" * 9000}, "9000 characters"),
        ({"mode": "upside-down"}, "choose one of real"),
        ({"kind": "odd"}, "choose one of unknown"),
        ({"seed": -1}, "whole number"),
        ({"max_new_tokens": 0}, "0 tokens"),
        ({"max_new_tokens": 5000}, "5000 tokens"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_a_request_that_means_nothing_is_a_sentence(settings, says):
    with pytest.raises(DemoError, match=says):
        Request(**{"prompt": "fold ?", **settings})


def test_a_mode_without_its_picture_is_a_sentence():
    made = session()
    for mode, says in (("real", "upload one"), ("irrelevant", "--irrelevant_images")):
        with pytest.raises(DemoError, match=says):
            next(made.ask(Request("fold ?", mode=mode)))
    assert len(made.line) == 0


def test_to_stop_ends_both_columns_and_frees_the_line():
    gates = Gate("a", "b", "c"), Gate("d", "e", "f")
    made = session(*gates)
    running = made.ask(Request("fold ?", mode="none"), "ann")
    next(running)
    for gate in gates:
        gate.open(1)
    while not all(answer.text for answer in next(running).answers):
        pass
    assert made.stop("bob") == 0
    assert made.stop("ann") == 1
    for gate in gates:
        gate.open()
    final = last(running)
    assert [(answer.state, answer.text) for answer in final.answers] == [("stopped", "a"), ("stopped", "d")]
    assert len(made.line) == 0


@pytest.mark.parametrize("stage", ["loading", "answering"])
def test_to_stop_does_not_wait_for_a_model_that_hears_nothing(stage):
    free = threading.Event()

    def late(question):
        assert free.wait(60)
        yield "late"

    def open_late():
        assert free.wait(60)
        return TellingTarget(echo)

    made = session(saying("a"), late)
    if stage == "loading":
        made.sides[1].open = open_late
    running = made.ask(Request("fold ?", mode="none"), "ann")
    while next(running).answers[0].state != "done":
        pass
    made.stop("ann")
    final = last(running)
    assert not free.is_set()
    assert [answer.state for answer in final.answers] == ["done", "stopped"]
    assert len(made.line) == 0
    free.set()
    assert last(made.ask(Request("again ?", mode="none"), "bob")).finished


def test_the_end_stops_all_and_lets_nobody_in():
    gate, target = Gate("a", "b", "c"), TellingTarget(saying("never"))
    made = session(gate)
    made.sides[1].open = lambda: target
    running = made.ask(Request("fold ?", mode="none"), "ann")
    next(running)
    assert next(running)
    assert gate.begun.wait(20)
    ending = threading.Thread(target=made.close)
    ending.start()
    while not made.line.closed:
        time.sleep(0.01)
    gate.open(1)  # its next word is its last
    ending.join(20)
    assert not ending.is_alive()
    assert target.closed
    with pytest.raises(DemoError, match="ended"):
        next(made.ask(Request("fold ?", mode="none"), "bob"))


def test_both_sides_do_not_ask_a_judge_at_once():
    class Alone:
        name, kinds, meta_fields, threshold = "alone", ("harm", "benign"), (), None
        inside, most = 0, 0

        def judge(self, exchanges):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.2)
            self.inside -= 1
            return [Judgement("safe", "refusal") for _ in exchanges]

    judge = Alone()
    last(session(judges=[judge]).ask(Request("fold ?", mode="none", kind="harm")))
    assert judge.most == 1


def test_a_gap_that_breaks_is_no_failure_of_the_answer(monkeypatch):
    def broken(target, question):
        raise RuntimeError("no memory")

    monkeypatch.setattr(side_module, "gap_of", broken)
    left, _ = last(session().ask(Request("fold ?", PICTURE))).answers
    assert (left.state, left.text) == ("done", "fold ? seen")
    assert left.no_gap == "RuntimeError: no memory"


def test_whoever_goes_away_frees_the_line():
    gate = Gate("a", "b")
    made = session(gate, gate)
    running = made.ask(Request("fold ?", mode="none"), "ann")
    next(running), next(running)
    running.close()
    assert len(made.line) == 0
    gate.open()
    assert last(made.ask(Request("again ?", mode="none"), "bob")).finished


def test_those_who_wait_know_how_long_and_can_leave():
    gate = Gate("a")
    made = session(gate, echo)
    first = made.ask(Request("fold ?", mode="none"), "ann")
    next(first), next(first)
    second = made.ask(Request("fold ?", mode="none"), "bob")
    assert next(second).ahead == 1
    made.stop("bob")
    assert [answer.state for answer in last(second).answers] == ["stopped", "stopped"]
    gate.open()
    assert last(first).finished


def test_a_client_has_few_places_and_the_line_an_end():
    line = Line(most=3, most_per_client=2)
    mine = [line.enter("ann"), line.enter("ann")]
    with pytest.raises(DemoError, match="one client"):
        line.enter("ann")
    line.enter("bob")
    with pytest.raises(DemoError, match="room"):
        line.enter("eve")
    line.leave(mine[0])
    assert line.enter("eve").ahead() == 2


def test_many_clients_get_their_own_answers():
    made = session(line=Line(most=64))
    found: dict[str, list[str]] = {}

    def client(name: str) -> None:
        for turn in range(4):
            prompt = f"{name} asks {turn}"
            answers = last(made.ask(Request(prompt, mode="none"), name)).answers
            found.setdefault(name, []).extend(answer.text for answer in answers)

    threads = [threading.Thread(target=client, args=(f"client-{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(12):
        name = f"client-{number}"
        assert found[name] == [f"{name} asks {turn} unseen" for turn in range(4) for _ in range(2)]
    assert len(made.line) == 0
