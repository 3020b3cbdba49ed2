"""Every conversation template against upstream's: its fields, and its prompts to the character."""

from __future__ import annotations

import itertools

import pytest

from llava.conversation import conv_templates

QUESTION = "What is  it?\n"
DIALOGUES = {
    "question": [QUESTION, None],
    "image": [f"<image>\n{QUESTION}", None],
    "second question": [f"<image>\n{QUESTION}", "A ring.", "Sure? <image>", None],
    "finished": [QUESTION, "A ring. ", " Sure?", "Yes </s> "],
    "empty answer": [QUESTION, "", "Sure?", ""],
    "question open": [f"{QUESTION} <image> <s>", "A ring.", "Sure?"],
    "nothing": [],
    "slot first": [None],
}
SYSTEMS = {"own": None, "none": "", "another": "<|im_start|>system\nBe brief."}


@pytest.fixture(scope="module")
def described(packages):
    return {name: packages[name]("template_operations.templates") for name in ("ours", "upstream")}


def test_templates_are_upstreams(described):
    assert described["ours"] == described["upstream"]
    assert len(described["ours"]) == 16


def test_prompts_are_upstreams(packages):
    cases = [
        {"key": key, "system": system, "turns": turns, "pictured": pictured}
        for key, system, turns, pictured in itertools.product(
            conv_templates, SYSTEMS.values(), DIALOGUES.values(), (False, True)
        )
        if not (pictured and (not turns or turns[0] is None))
    ]
    ours, theirs = (
        packages[name]("template_operations.prompts", cases=cases) for name in ("ours", "upstream")
    )
    different = [
        (case, mine, their) for case, mine, their in zip(cases, ours, theirs, strict=True) if mine != their
    ]
    # An answer after a caption has no separator there, and upstream adds None to a text. Nothing asks for it.
    plain = [case["key"] in {"plain", "v0_plain"} and len(case["turns"]) > 1 for case, _, _ in different]
    assert all(plain), [difference for difference, fine in zip(different, plain, strict=True) if not fine][:3]
    assert all(their == "refused" for _, _, their in different)
    assert len(cases) > 600
    assert sum(prompt == "refused" for prompt in ours) < 0.1 * len(cases)
