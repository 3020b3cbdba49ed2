"""Every defence on every family of models: it runs there, or it is refused by name."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from regap_patch.commands.defended import DefendedTarget, LoadedModel
from regap_patch.defenses import Stack
from regap_patch.defenses.anchors import read_anchors, read_opposed
from regap_patch.defenses.fit_cmrm import fit_cmrm
from regap_patch.defenses.fit_vlm_guard import fit_vlm_guard
from regap_patch.defenses.table import DEFENSES, find_defense
from regap_patch.errors import UnsupportedModelError
from regap_patch.hosts.table import HOSTS
from regap_patch.safety.target import Question
from regap_patch.safety.targets.huggingface import HuggingFaceTarget
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.defended_targets import GREEDY, PICTURES, QUESTIONS, answers, hooks, loaded, texts
from tests.contract.defense_table import TABLE, cells
from tests.contract.host_rows import ROWS
from tests.contract.tiny_hf_folder import make_hf_folder

RUNS = [cell for cell, refused in cells().items() if refused is None and cell[0] != "endpoint"]
REFUSED = [(*cell, refused) for cell, refused in cells().items() if refused is not None]
SERVED = [name for (host, name), refused in cells().items() if refused is None and host == "endpoint"]
ASKED = [*QUESTIONS, Question("and this one ?", PICTURES[1])]


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def targets(llava_folder, tiny, tmp_path_factory):
    """Loaded once each, with the settings of the defences that are fitted to them."""
    root = tmp_path_factory.mktemp("hosts")
    folders = {
        "llava": llava_folder,
        "hf_llava": make_hf_folder(tiny, root / "hf_llava"),
        "llava_next": make_hf_folder(tiny, root / "llava_next", anyres=True),
    }
    anchors, pairs = root / "anchors.jsonl", root / "pairs.jsonl"
    words = ["what is it ?", "fold the red cup", "is a square blue ?"]
    anchors.write_text("".join(json.dumps({"text": text}) + "\n" for text in words))
    pairs.write_text("".join(json.dumps({"harmful": one, "harmless": f"not {one}"}) + "\n" for one in words))
    found = {}
    for name, folder in folders.items():
        kind = LlavaTarget if name == "llava" else HuggingFaceTarget
        target = kind(LocalOptions(str(folder), device="cpu"))
        model = loaded(target)
        assert model.host.name == name
        vectors, directions = root / f"{name}-cmrm", root / f"{name}-guard"
        fit_cmrm(model, read_anchors(anchors), vectors)
        fit_vlm_guard(model, read_opposed(pairs), directions, rank=2)
        settings = {
            "cmrm": {"vectors": vectors, "alpha": 3.0},
            "vlm_guard": {"directions": directions, "rank": 2, "alpha": 8.0, "form": "replaced"},
        }
        found[name] = target, settings
    return found


def test_the_table_names_every_host_and_every_defence():
    assert set(TABLE) == {host.name for host in HOSTS} | {"endpoint"}
    assert {name for host, name in cells()} == set(DEFENSES)
    assert set(TABLE["endpoint"]["defenses"]) < set(DEFENSES)
    assert {row.name for row in ROWS.values() if row.name == row.host} == set(TABLE) - {"endpoint"}


class Anything:
    def __contains__(self, said):
        return True


@pytest.mark.parametrize(("host", "name"), RUNS, ids=[":".join(cell) for cell in RUNS])
def test_it_runs_and_leaves_no_trace(targets, host, name, monkeypatch):
    target, settings = targets[host]
    monkeypatch.setattr("regap_patch.defenses.ecso.YES", Anything())  # what random weights say, too
    made = [find_defense(name)(**settings.get(name, {})) for _ in range(2)]
    before, count = answers(target, ASKED), hooks(target)
    defended = DefendedTarget(target, Stack(made[:1]))
    together = answers(defended, ASKED)
    assert together != before
    alone = DefendedTarget(target, Stack(made[1:]))
    assert [text for text, _, _ in together] == [texts(alone, [question])[0] for question in ASKED]
    (reply,) = defended.answer(ASKED[:1], GREEDY, [0])
    assert reply.trace["defenses"][name]["fired"]
    assert hooks(target) == count
    assert answers(target, ASKED) == before


@pytest.mark.parametrize(("host", "name", "sentence"), REFUSED, ids=[":".join(cell[:2]) for cell in REFUSED])
def test_it_is_refused_by_name(targets, tiny, tmp_path, host, name, sentence):
    settings = targets["llava"][1].get(name, {})
    stack = Stack([find_defense(name)(**settings)])
    if host == "endpoint":
        with pytest.raises(UnsupportedModelError, match=f"{name} changes .* {sentence}"):
            stack.fingerprint({"kind": "endpoint", "base_url": "http://127.0.0.1:1"})
        return
    model = ROWS[host].build(tiny)
    target = SimpleNamespace(loaded=lambda: (model, None))
    seen = LoadedModel(target, {})
    with pytest.raises(UnsupportedModelError, match=rf"defences {name} .*\(host {host}\) {sentence}"):
        stack.prepare(seen)
    with pytest.raises((TypeError, ValueError)):
        model.generate(input_ids=ROWS[host].collate([([5, 6], [7])], 0)["input_ids"])
    path = tmp_path / "rows.jsonl"
    if name == "cmrm":
        path.write_text(json.dumps({"text": "x"}) + "\n")
        with pytest.raises(UnsupportedModelError, match=sentence):
            fit_cmrm(seen, read_anchors(path), tmp_path / "out")
    if name == "vlm_guard":
        path.write_text(json.dumps({"harmful": "x", "harmless": "y"}) + "\n")
        with pytest.raises(UnsupportedModelError, match=sentence):
            fit_vlm_guard(seen, read_opposed(path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SERVED)
def test_a_server_takes_those_that_need_no_layers(name):
    stack = Stack([find_defense(name)()])
    assert stack.fingerprint({"kind": "endpoint", "base_url": "http://127.0.0.1:1"})[0]["name"] == name
