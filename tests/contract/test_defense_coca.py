"""CoCA against two runs of the model side by side, and together with what changes the states below it."""

from __future__ import annotations

import json

import pytest
import torch

from regap_patch.defenses import Turn
from regap_patch.defenses.anchors import read_anchors
from regap_patch.defenses.cmrm import Cmrm
from regap_patch.defenses.coca import PRINCIPLE, Coca, Contrast
from regap_patch.defenses.fit_cmrm import fit_cmrm
from regap_patch.safety.png import plain_png
from regap_patch.safety.target import Decoding
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.by_hand import Huggingface, Llava, greedy, length, states
from tests.contract.defended_targets import (
    QUESTIONS,
    STEPS,
    answers,
    defended,
    hooks,
    loaded,
    seen_scores,
    texts,
)
from tests.contract.tiny_hf_folder import make_hf_folder

KINDS = {"llava": (LlavaTarget, Llava), "huggingface": (HuggingFaceTarget, Huggingface)}
ALPHA = 6.0


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def target(kind, llava_folder, tiny, tmp_path_factory):
    folder = llava_folder if kind == "llava" else make_hf_folder(tiny, tmp_path_factory.mktemp("hf") / "m")
    return KINDS[kind][0](LocalOptions(str(folder), device="cpu"))


@pytest.fixture(scope="module")
def hand(kind, target):
    return KINDS[kind][1](target)


def contrast(rows):
    with_it, without = rows
    return with_it + ALPHA * (with_it - without)


@pytest.mark.parametrize("place", ["before", "after"])
def test_each_token_is_the_references(target, hand, place):
    for question in QUESTIONS[:4]:
        text = question.text
        told = f"{PRINCIPLE.own}\n{text}" if place == "before" else f"{text}\n{PRINCIPLE.own}"
        branches = [(told, question.picture), (text, question.picture)]
        expected = greedy(hand, branches, STEPS, contrast)
        scores, (trace,) = seen_scores(target, [Coca(alpha=ALPHA, place=place)], [question])
        assert scores.shape[1] == 2
        assert torch.equal(scores[:, 0], scores[:, 1])
        assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
        torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=2e-5)
        assert trace["defenses"]["coca"] == {"fired": True}
        assert trace["generations"] == 2
        alone = greedy(hand, branches[:1], STEPS)
        assert (alone.scores - expected.scores).abs().max() > 1e-2


def test_without_alpha_it_is_the_principle_alone(target):
    told = [Turn(0, "", f"{PRINCIPLE.own}\n{QUESTIONS[0].text}", QUESTIONS[0].picture)]
    plain, _ = seen_scores(target, [Coca(alpha=0.0)], QUESTIONS[:1])
    model = loaded(target)
    with torch.no_grad():
        last = model.module(**model.inputs(told)).logits[0, -1]
    torch.testing.assert_close(plain[0, 0], last, rtol=0, atol=1e-6)


def test_a_batch_answers_as_each_alone(target):
    together = texts(defended(target, Coca(alpha=ALPHA)))
    assert together == [texts(defended(target, Coca(alpha=ALPHA)), [question])[0] for question in QUESTIONS]
    assert together != texts(target)


def test_draws_are_one_for_both_rows_and_follow_the_seed(target):
    drawn = Decoding(max_new_tokens=STEPS, temperature=1.0, top_p=0.9)
    together = texts(defended(target, Coca(alpha=2.0)), QUESTIONS, drawn)
    for number, question in enumerate(QUESTIONS):
        assert texts(defended(target, Coca(alpha=2.0)), [question], drawn) == [together[number]]
    seen, real = [], target.new_ids
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "new_ids", lambda *args: seen.append(real(*args)) or seen[-1])
        texts(defended(target, Coca(alpha=2.0)), QUESTIONS, drawn)
    for rows in seen:
        assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


def test_taken_away_it_leaves_no_trace(target):
    before, count = answers(target), hooks(target)
    assert answers(defended(target, Coca())) != before
    assert hooks(target) == count
    assert answers(target) == before


def test_states_moved_below_it_are_moved_in_both_branches(target, hand, tmp_path):
    path = tmp_path / "anchors.jsonl"
    path.write_text(json.dumps({"text": "what is it ?"}) + "\n")
    fit_cmrm(loaded(target), read_anchors(path), tmp_path / "fit")
    defense = Cmrm(tmp_path / "fit", alpha=3.0, positions="all_steps")
    vectors = 3.0 * defense._fit().tensors(len(hand.layers))["mean"]
    question = QUESTIONS[1]
    branches = [
        (f"{PRINCIPLE.own}\n{question.prompt}", question.picture),
        (question.prompt, question.picture),
    ]
    expected = greedy(hand, branches, STEPS, contrast, change=lambda number, state: state + vectors[number])
    scores, (trace,) = seen_scores(target, [defense, Coca(alpha=ALPHA)], [question])
    assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
    torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=2e-5)
    assert {name: notes["fired"] for name, notes in trace["defenses"].items()} == {"cmrm": True, "coca": True}
    stacked = [Cmrm(tmp_path / "fit", alpha=3.0), Coca(alpha=ALPHA)]
    together = texts(defended(target, *stacked))
    assert together == [texts(defended(target, *stacked), [question])[0] for question in QUESTIONS]


def test_last_positions_are_those_of_the_longer_prompt(target, hand):
    """Both branches are padded to one length; the shift at the prompt's end is at the end of both."""
    question = QUESTIONS[0]
    branches = [
        (f"{PRINCIPLE.own}\n{question.prompt}", question.picture),
        (question.prompt, question.picture),
    ]
    lengths = [length(hand, *branch) for branch in branches]
    assert lengths[0] > lengths[1]
    own = Cmrm(of="sample", layers="1", positions="last_prefill", alpha=40.0)
    blank = plain_png(20, 24, (255, 255, 255))
    vector = 40.0 * (states(hand, question.prompt, None) - states(hand, question.prompt, blank))[0]
    ends = iter(lengths * STEPS)

    def change(number, state):
        if number:
            return state
        moved = state.clone()
        moved[:, next(ends) - 1] += vector
        return moved

    expected = greedy(hand, branches, STEPS, contrast, change=change)
    scores, _ = seen_scores(target, [own, Coca(alpha=ALPHA)], [question])
    assert scores.argmax(-1)[:, 0].tolist() == expected.tokens[: len(scores)]
    torch.testing.assert_close(scores[:, 0], expected.scores[: len(scores)], rtol=0, atol=2e-5)


def test_a_token_that_is_forbidden_stays_so():
    scores = torch.tensor([[1.0, float("-inf"), 3.0], [0.5, float("-inf"), float("-inf")]])
    found = Contrast(2.0)(torch.zeros(2, 1, dtype=torch.long), scores)
    expected = torch.tensor([2.0, float("-inf"), 3.0])
    assert torch.equal(found, expected.repeat(2, 1))
