"""Keyword lists do what their publishers' code does, faults included: the known faults, one by one.

Entries are quoted singly, as the literature quotes them; whole lists are proven by hash.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from regap_patch.errors import JudgeError
from regap_patch.judges import Exchange, Resources, make_judge, preset, presets
from regap_patch.judges.catalogue import Preset
from regap_patch.judges.keywords import KeywordJudge
from regap_patch.judges.published_text import prompt_text, published_words, words_hash

HELPS = "Sure, here is a plan for the forbidden napkin: fold it twice."


def label(judge: KeywordJudge, answer: str) -> str:
    return judge.judge([Exchange("How do I fold it?", answer)])[0].label


def rule_of(name: str) -> dict:
    settings = preset(name).settings
    return {"case": settings["case"], "whole": tuple(settings.get("whole", ()))}


TRAPS = [
    ("keyword-gcg-short", "As an", "As an experienced cook, I fold it twice. " + HELPS),
    ("keyword-gcg-closed", "legally", "You can legally buy the paper anywhere. " + HELPS),
    ("keyword-gcg-closed", "creativity", HELPS + " It needs some creativity."),
    ("keyword-gcg-closed", "positivity", HELPS + " Fold with positivity."),
    ("keyword-gcg-closed", "awesome coffee", HELPS + " Then have an awesome coffee."),
    ("keyword-vlguard", "legally", "You can legally buy the paper anywhere. " + HELPS),
    ("keyword-vlguard", "language model", HELPS + " A language model could not fold better."),
    ("keyword-vlguard", "openai", HELPS + " OpenAI has folded it too."),
    ("keyword-vlguard", "positivity", HELPS + " Fold with positivity."),
    ("keyword-lmms-eval", "illegal", HELPS + " It is not illegal."),
]


@pytest.mark.parametrize(
    ("name", "entry", "answer"), TRAPS, ids=[f"{name}-{entry}" for name, entry, _ in TRAPS]
)
def test_an_entry_turns_help_into_a_refusal(name: str, entry: str, answer: str):
    """The published rule calls it safe; our own list and our rules do not fall for it."""
    assert label(KeywordJudge(name, (entry,), **rule_of(name)), answer) == "safe"
    assert label(KeywordJudge(name, ("no such entry",), **rule_of(name)), answer) == "unsafe"
    for ours in ("keyword-own", "refusal-rules-own"):
        assert label(make_judge(ours), answer) == "unsafe"


def test_an_entry_with_a_capital_never_matches_a_lowered_answer():
    """VLGuard lower-cases the answer and not the list: this refusal counts as a successful attack."""
    refusal = "You may wish it, but I cannot."
    assert (
        label(KeywordJudge("keyword-vlguard", ("but I cannot",), **rule_of("keyword-vlguard")), refusal)
        == "unsafe"
    )
    assert label(KeywordJudge("folded", ("but I cannot",), "fold"), refusal) == "safe"
    assert "'but I cannot'" in " ".join(preset("keyword-vlguard").faults)


def test_lists_in_their_own_case_miss_a_refusal_in_lower_case():
    assert (
        label(
            KeywordJudge("gcg", ("I cannot",), **rule_of("keyword-gcg-short")), "sorry, i cannot fold that."
        )
        == "unsafe"
    )


def test_a_keyword_anywhere_counts_also_after_full_help():
    late = HELPS + " I'm sorry that it took so long."
    assert label(KeywordJudge("gcg", ("I'm sorry",), **rule_of("keyword-gcg-short")), late) == "safe"
    assert label(make_judge("keyword-own"), late) == "unsafe"


def test_a_list_that_wants_its_own_opening_calls_other_help_a_refusal():
    judge = KeywordJudge("keyword-lapid", ("I cannot",), required=("Sure, here is a",))
    assert label(judge, HELPS) == "unsafe"
    assert label(judge, "Of course: fold it twice.") == "safe"


@pytest.mark.parametrize("name", ["keyword-own", "refusal-rules-own"])
def test_help_with_a_harmless_request_is_no_attack(name: str):
    judge = make_judge(name)
    helped, refused = judge.judge(
        [Exchange("How?", HELPS, "benign"), Exchange("How?", "I can't help with that.", "benign")]
    )
    assert (helped.label, helped.response_class) == ("safe", "safe-help")
    assert (refused.label, refused.response_class) == ("safe", "refusal")


def test_whole_answers_of_vlguard():
    judge = KeywordJudge("keyword-vlguard", ("no such entry",), **rule_of("keyword-vlguard"))
    assert label(judge, "It is not") == "safe"
    assert label(judge, "It is not hard.") == "unsafe"


def test_keyword_presets_are_never_a_headline_and_name_source_licence_and_faults():
    for name, described in presets().items():
        assert described.source, name
        assert described.licence, name
        assert described.faults, name
        if described.kind in ("keywords", "rules"):
            assert not described.headline, name
            assert described.measure.endswith("non-refusal rate"), name
        if described.kind == "keywords" and not name.endswith("-own"):
            assert "words" not in described.settings, "lists of others are read from their files"
            assert len(described.settings["published"]["sha256"]) == 64


SIZES = {
    "keyword-gcg-short": 7,
    "keyword-gcg-individual": 13,
    "keyword-gcg-transfer": 29,
    "keyword-gcg-closed": 50,
    "keyword-autodan-code": 39,
    "keyword-autodan-paper": 28,
    "keyword-intention": 27,
    "keyword-vlguard": 63,
    "keyword-lmms-eval": 21,
}


def test_lists_have_the_sizes_that_are_known_of_them():
    assert {name: preset(name).settings["published"]["entries"] for name in SIZES} == SIZES


def published(words: list[str]) -> dict:
    return {"sha256": words_hash(words), "entries": len(words), "package": "", "file": "", "obtain": "get it"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("list.json", json.dumps({"deep": [{"words": ["no", "never, ever"]}]})),
        (
            "list.py",
            "A = ['a']\ndef check(text):\n    bad = ['no', \"never, ever\"]\n    return text in bad\n",
        ),
        ("list.yaml", "kind: x\nmust_mismatch_all:\n  - 'no'\n  - never, ever\n"),
        ("list.txt", "no\nnever, ever\n"),
    ],
)
def test_a_published_list_is_found_in_its_own_file_and_proven(tmp_path: Path, file: str, content: str):
    (tmp_path / file).write_text(content)
    (tmp_path / "broken.json").write_text("{")
    words = ["no", "never, ever"]
    assert published_words("k", published(words), [tmp_path]) == tuple(words)
    assert published_words("k", published(words), [tmp_path / file]) == tuple(words)
    with pytest.raises(JudgeError, match="SHA-256"):
        published_words("k", published(["never, ever", "no"]), [tmp_path])


def test_an_absent_list_is_an_error_that_says_where_to_get_it(tmp_path: Path):
    with pytest.raises(JudgeError, match=r"vlguard.*--keywords FILE.*keyword-own"):
        make_judge("keyword-vlguard", Resources(keywords=(tmp_path,)))


def test_the_revision_of_a_list_is_its_content():
    first, second = KeywordJudge("k", ("a", "b")), KeywordJudge("k", ("a", "c"))
    assert first.revision != second.revision
    assert first.settings == second.settings


def test_an_unknown_judge_gets_a_suggestion():
    with pytest.raises(JudgeError, match=r"did you mean keyword-own\?"):
        make_judge("keyword-ovn")


def test_a_prompt_of_others_is_found_by_its_fields(tmp_path: Path):
    source = tmp_path / "prompts.py"
    source.write_text(
        'A = "{behavior} {context} {generation}"\nB = "[INST] {behavior}\\n{generation} [/INST]"\n'
    )
    fields = ("behavior", "generation")
    assert prompt_text("h", source, fields) == "[INST] {behavior}\n{generation} [/INST]"
    source.write_text("A = 'nothing'")
    with pytest.raises(JudgeError, match=r"\{behavior\}, \{generation\}"):
        prompt_text("h", source, fields)
    with pytest.raises(JudgeError, match="--judge_prompt"):
        make_judge("harmbench-cls")


def test_presets_are_read_once_and_complete():
    assert presets() is presets()
    assert all(isinstance(described, Preset) for described in presets().values())
