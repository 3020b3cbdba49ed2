"""Prompt-level defences and ECSO on a scripted model: what is told, in which order, and whose words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from scripted_model import ScriptedModel, turns_of

from regap_patch.defenses import Stack
from regap_patch.defenses.adashield import PROMPT as ADASHIELD
from regap_patch.defenses.adashield import AdaShieldS
from regap_patch.defenses.ecso import ANSWER, CAPTION, CHECK, Ecso
from regap_patch.defenses.self_reminder import PROMPT as REMINDER
from regap_patch.defenses.self_reminder import SelfReminder
from regap_patch.defenses.words import filled
from regap_patch.errors import ConfigError, DefenseError
from regap_patch.fixed_prompt import FixedPrompt
from regap_patch.safety.target import Reply

PICTURE = b"a picture"


def told(defense, *asked, script=lambda turn: "said", pictures=()):
    model = ScriptedModel(script)
    Stack([defense]).answer(turns_of(*asked, pictures=pictures), model, model.generate)
    return model.told


def test_adashield_stands_where_its_setting_says():
    for place, expected in (
        ("between", "fold {q}" + ADASHIELD.own + "fold {q}"),
        ("after", "fold {q}" + ADASHIELD.own),
        ("before", ADASHIELD.own + "fold {q}"),
    ):
        assert told(AdaShieldS(place=place), "fold {q}") == [expected]


def test_self_reminder_stands_around_the_words():
    before, after = REMINDER.own.split("{}")
    said = told(SelfReminder(), "fold {} {0}", "b")
    assert said == [
        f"{before}fold {{}} {{0}}{after}",
        f"{before}b{after}",
    ]


def test_slots_are_filled_in_their_order_and_braces_stay():
    assert filled("a{}b{}c", "{}", "{1}") == "a{}b{1}c"
    with pytest.raises(ValueError, match="argument"):
        filled("a{}", "b", "c")


def ecso_script(unsafe: set[str], said_of_harm: str = "Yes."):
    """Answers and captions that name the question, and checks that go by it."""

    def script(turn):
        if turn.told == turn.asked:
            return f"first {turn.asked}"
        if "they were told" in turn.told:
            return said_of_harm if turn.asked in unsafe else "No"
        return f"caption {turn.asked}" if "Describe the picture" in turn.told else f"again {turn.asked}"

    return script


def test_ecso_asks_step_by_step_and_only_what_is_flagged():
    model = ScriptedModel(ecso_script({"bad"}))
    turns = turns_of("good", "bad", "blind", pictures=[PICTURE, PICTURE])
    answered = Stack([Ecso()]).answer(turns, model, model.generate)
    assert [reply.text for reply in answered.replies] == ["first good", "again bad", "first blind"]
    assert model.told == [
        *("good", "bad", "blind"),
        CHECK.own.replace("{}", "good", 1).replace("{}", "first good"),
        CHECK.own.replace("{}", "bad", 1).replace("{}", "first bad"),
        CAPTION.own.replace("{}", "bad"),
        ANSWER.own.replace("{}", "caption bad", 1).replace("{}", "bad"),
    ]
    shown = [turn.picture for turns, _, _ in model.calls for turn in turns]
    assert shown == [PICTURE, PICTURE, None, PICTURE, PICTURE, PICTURE, None]
    notes = [trace["defenses"]["ecso"] for trace in answered.traces]
    assert notes == [
        {"fired": False, "check": "No"},
        {"fired": True, "check": "Yes.", "caption": "caption bad", "replaced": "first bad"},
        {"fired": False},
    ]
    assert [trace["generations"] for trace in answered.traces] == [2, 4, 1]
    assert [trace["new_tokens"] for trace in answered.traces] == [6, 12, 3]


@pytest.mark.parametrize(
    ("said", "flagged"),
    [
        ("yes", True),
        ("YES.", True),
        (" Yes ", True),
        ("Yes, it is", False),
        ("no", False),
        ("y", False),
        ("", False),
    ],
)
def test_only_a_plain_yes_flags_an_answer(said, flagged):
    model = ScriptedModel(ecso_script({"bad"}, said))
    (trace,) = Stack([Ecso()]).answer(turns_of("bad", pictures=[PICTURE]), model, model.generate).traces
    assert trace["defenses"]["ecso"]["fired"] is flagged
    assert trace["generations"] == (4 if flagged else 2)


def test_ecso_quotes_the_users_words_and_keeps_the_prompts_around_its_last_question():
    model = ScriptedModel(lambda turn: "yes")
    stack = Stack([Ecso(characters=2), SelfReminder()])
    stack.answer(turns_of("bad", pictures=[PICTURE]), model, model.generate)
    reminded = REMINDER.own.replace("{}", "bad")
    assert model.told == [
        reminded,
        CHECK.own.replace("{}", "bad", 1).replace("{}", "ye"),
        CAPTION.own.replace("{}", "bad"),
        ANSWER.own.replace("{}", "yes", 1).replace("{}", reminded),
    ]


def test_a_sign_for_a_picture_among_the_models_words_is_quoted_as_a_word():
    model = ScriptedModel(lambda turn: "yes" if "they were told" in turn.told.lower() else "an <image> tag")
    turns = turns_of("bad", pictures=[PICTURE])
    (reply,) = Stack([Ecso()]).answer(turns, model, model.generate).replies
    assert reply.text == "an <image> tag"
    assert CHECK.own.replace("{}", "bad", 1).replace("{}", "an image tag") == model.told[1]
    assert ANSWER.own.replace("{}", "an image tag", 1).replace("{}", "bad") == model.told[3]


@pytest.mark.parametrize(("failing", "generations"), [(1, 1), (2, 2), (3, 3), (4, 4)])
def test_a_step_that_fails_is_a_failure_of_the_answer(failing, generations):
    calls = []

    def script(turn):
        calls.append(turn)
        return Reply("", 0, "error", error="gone") if len(calls) == failing else "yes"

    model = ScriptedModel(script)
    answered = Stack([Ecso()]).answer(turns_of("bad", pictures=[PICTURE]), model, model.generate)
    assert answered.replies[0].error == "gone"
    assert answered.traces[0]["generations"] == generations
    assert answered.traces[0]["defenses"]["ecso"]["fired"] is False


def published(monkeypatch, module: str, text: str):
    """The hash of a text of ours in the place of the published one."""
    prompt = FixedPrompt("stand-in", len(text), hashlib.sha256(text.encode()).hexdigest()[:16], "own {}")
    monkeypatch.setattr(f"regap_patch.defenses.{module}.PROMPT", prompt)


def test_published_words_are_known_by_their_hash(monkeypatch, tmp_path):
    text = "Remember {} always."
    published(monkeypatch, "self_reminder", text)
    program = tmp_path / "program.py"
    program.write_text("import nothing\nTEMPLATES = ['{}', 'Remember {} ' 'always.']\n")
    plain = tmp_path / "plain.txt"
    plain.write_text(text + "\n")
    for file in (program, plain):
        defense = SelfReminder(published=file)
        assert told(defense, "x") == ["Remember x always."]
        whole = hashlib.sha256(text.encode()).hexdigest()
        assert defense.fingerprint({})["words"] == {"label": "published", "sha256": [whole]}
    plain.write_text("Remember {} never.")
    with pytest.raises(
        DefenseError, match=r"stand-in \(19 characters, SHA-256 .*plain.txt does not hold them"
    ):
        SelfReminder(published=plain)
    with pytest.raises(DefenseError, match=r"read its words from .*none.txt, but that failed"):
        SelfReminder(published=tmp_path / "none.txt")
    assert SelfReminder().fingerprint({})["words"]["label"] == "own"


def test_words_of_ones_own(tmp_path):
    file = tmp_path / "words.txt"
    file.write_text("check {} {}\n---\ncaption {}\n---\nanswer {} {}\n")
    defense = Ecso(words=file)
    assert defense.fingerprint({})["words"]["label"] == "given"
    said = told(defense, "q", script=lambda turn: "yes", pictures=[PICTURE])
    assert said == ["q", "check q yes", "caption q", "answer yes q"]
    file.write_text("check {}\n---\ncaption {}")
    with pytest.raises(
        DefenseError, match=r"ecso needs 3 texts with 2 and 1 and 2 times {}.* holds 2 with 1 and 1"
    ):
        Ecso(words=file)
    with pytest.raises(ConfigError, match="choose the published words or your own"):
        Ecso(words=file, published=file)
    with pytest.raises(ConfigError, match="characters=0: at least 1 is shown"):
        Ecso(characters=0)


def test_what_we_say_is_not_what_others_published():
    """The published texts are not in this repository: our own are others, and their hashes are whole."""
    for prompt in (ADASHIELD, REMINDER, CHECK, CAPTION, ANSWER):
        assert not prompt.is_published(prompt.own)
        assert len(prompt.sha256) == 16
    sources = Path(__file__).parents[2].joinpath("regap_patch/defenses").glob("*.py")
    for source in sources:
        for prompt in (ADASHIELD, REMINDER, CHECK, CAPTION, ANSWER):
            assert prompt.published_in(source) is None, source
