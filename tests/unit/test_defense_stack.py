"""Stacks: their order, what cannot stand together, what is passed inwards, and what is written down."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from scripted_model import ScriptedModel, turns_of

from regap_patch.defenses import Defense, Stack, make_stack
from regap_patch.defenses.table import DEFENSES
from regap_patch.errors import ConfigError, DefenseError, UnsupportedModelError
from regap_patch.hosts.huggingface import BLIP_2


@dataclass
class Layer(Defense):
    """Puts its name around what is told and before what is said."""

    number: int = 0
    share: float = 1.0
    loud: bool = False
    file: Path | None = None
    name: ClassVar[str] = "layer"
    level: ClassVar[str] = "prompt"

    def around(self, turns, generate, notes):
        for turn in turns:
            notes.fired(turn)
        replies = generate([turn.telling(f"{self.name}({turn.told})") for turn in turns])
        return [replace(reply, text=f"{self.name}[{reply.text}]") for reply in replies]


def layer(name: str, level: str, *owns: str) -> Defense:
    return type(name, (Layer,), {"name": name, "level": level, "owns": frozenset(owns)})()


def test_order_is_the_levels_and_then_the_names():
    given = [
        layer("d", "decoding"),
        layer("h", "hidden"),
        layer("p1", "prompt"),
        layer("a", "answer"),
        layer("p2", "prompt"),
    ]
    stack = Stack(given)
    assert stack.name == "p1+p2+a+h+d"
    model = ScriptedModel(lambda turn: turn.told)
    answered = stack.answer(turns_of("x"), model, model.generate)
    assert model.told == ["d(h(a(p2(p1(x)))))"]
    assert answered.replies[0].text == "p1[p2[a[h[d[d(h(a(p2(p1(x)))))]]]]]"
    assert answered.traces[0]["defenses"] == {name: {"fired": True} for name in ("p1", "p2", "a", "h", "d")}
    assert (answered.traces[0]["generations"], answered.traces[0]["new_tokens"]) == (1, 3)
    assert list(answered.seconds) == ["p1", "p2", "a", "h", "d", "model"]


def test_inner_levels_get_the_turns_of_one_pass_and_outer_ones_all():
    seen = {}

    class Outer(Layer):
        name, level = "outer", "answer"

        def around(self, turns, generate, notes):
            seen.setdefault("outer", []).append([turn.number for turn in turns])
            return generate(turns)

    class Inner(Layer):
        name, level = "inner", "hidden"

        def around(self, turns, generate, notes):
            seen.setdefault("inner", []).append([turn.number for turn in turns])
            return generate(turns)

    model = ScriptedModel(lambda turn: f"{turn.number}")
    turns = turns_of("a", "b", "c", pictures=[None, b"picture", None])
    answered = Stack([Inner(), Outer()]).answer(turns, model, model.generate)
    assert seen == {"outer": [[0, 1, 2]], "inner": [[1], [0, 2]]}
    assert [reply.text for reply in answered.replies] == ["0", "1", "2"], "in the order of the questions"


def test_what_an_outer_defence_wants_holds_further_in():
    class Short(Layer):
        name, level = "short", "answer"

        def around(self, turns, generate, notes):
            notes.spent(turns, prefills=2)
            generate([], max_new_tokens=1)
            return generate(turns, max_new_tokens=5)

    class Steering(Layer):
        name, level = "steering", "decoding"

        def around(self, turns, generate, notes):
            notes.spent(turns, prefills=1)
            notes.spent(turns, prefills=1)
            return generate(turns, processors=["mine"], max_new_tokens=9)

    model = ScriptedModel(lambda turn: "said")
    answered = Stack([Steering(), Short()]).answer(turns_of("a"), model, model.generate)
    assert [call[1:] for call in model.calls] == [(("mine",), 5)], "nobody is asked about no turns"
    notes = answered.traces[0]["defenses"]
    assert notes == {"short": {"fired": False, "prefills": 2}, "steering": {"fired": False, "prefills": 2}}


def test_what_cannot_stand_together():
    with pytest.raises(ConfigError, match=r"The defence p was named twice in one stack: name each once\."):
        Stack([layer("p", "prompt"), layer("p", "prompt")])
    pair = [layer("one", "decoding", "decoding"), layer("two", "decoding", "decoding")]
    with pytest.raises(ConfigError, match=r"The defences one and two both own the decoding, and only one"):
        Stack(pair)
    with pytest.raises(ConfigError, match=r"self_reminder was named twice"):
        make_stack("self_reminder+adashield_s+self_reminder")
    with pytest.raises(ConfigError, match=r"'adashild_s' .* none of that name: did you mean adashield_s, or"):
        make_stack("adashild_s+ecso")
    with pytest.raises(ConfigError, match=r"'zzz' .* choose from one of adashield_s, self_reminder, ecso"):
        make_stack("zzz")
    with pytest.raises(ConfigError, match="has an empty name: write names with \\+ between"):
        make_stack("ecso+")


def test_settings_are_read_by_their_types(monkeypatch, tmp_path):
    monkeypatch.setitem(DEFENSES, "layer", "layer_for_tests:Layer")
    module = types.ModuleType("regap_patch.defenses.layer_for_tests")
    module.Layer = Layer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    file = tmp_path / "vectors"
    file.write_bytes(b"v")
    (made,) = make_stack(
        "layer", {"layer.number": "3", "layer.share": "0.5", "layer.loud": "true", "layer.file": str(file)}
    ).defenses
    assert (made.number, made.share, made.loud, made.file) == (3, 0.5, True, file)
    hashed = "4c94485e0c21ae6c41ce1dfe7b6bfaceea5ab68e40a2476f50208e526f506080"
    settings = {"name": "layer", "number": 3, "share": 0.5, "loud": True, "file": hashed}
    assert made.fingerprint({}) == settings, "of a file what is in it, not where it lies"
    with pytest.raises(ConfigError, match=r"layer was given number=x, but a int is expected"):
        make_stack("layer", {"layer.number": "x"})
    with pytest.raises(ConfigError, match=r"layer was given numbr=1 \(did you mean number\?\), but it has"):
        make_stack("layer", {"layer.numbr": "1"})
    with pytest.raises(ConfigError, match=r"'ecso.words' is of no defence of the stack 'layer'"):
        make_stack("layer", {"ecso.words": "x"})
    with pytest.raises(ConfigError, match=r"place=under, but one of between, after, before"):
        make_stack("adashield_s", {"adashield_s.place": "under"})


def test_a_defence_that_loses_a_reply_is_named():
    class Losing(Layer):
        name = "losing"

        def around(self, turns, generate, notes):
            return generate(turns)[:1]

    model = ScriptedModel(lambda turn: "said")
    with pytest.raises(DefenseError, match="losing gave 1 replies to 2 turns"):
        Stack([Losing()]).answer(turns_of("a", "b"), model, model.generate)


def test_hosts_and_servers_that_do_not_suit():
    class Inside(Layer):
        name, level, needs_layers = "inside", "hidden", True

    with pytest.raises(UnsupportedModelError, match=r"inside changes what happens .* http://x/v1 is out"):
        Stack([Inside()]).fingerprint({"kind": "endpoint", "base_url": "http://x/v1"})
    assert Stack([Layer()]).fingerprint({"kind": "endpoint"})[0]["name"] == "layer"
    model = ScriptedModel(lambda turn: "")
    model.host = BLIP_2
    with pytest.raises(UnsupportedModelError, match=r"layer compare with text alone.*host blip_2\) answers"):
        Stack([Layer()]).prepare(model)
