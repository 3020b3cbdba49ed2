"""Anchors, fitted folders and prompts: what is read, and the sentence for what does not belong."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch

from regap_patch.defenses import FittedItem, make_stack
from regap_patch.defenses.anchors import read_anchors, read_opposed
from regap_patch.defenses.cmrm import Cmrm
from regap_patch.defenses.fit_files import read_fit, write_fit
from regap_patch.defenses.placeholder import cut_between
from regap_patch.defenses.states import layer_numbers
from regap_patch.errors import ConfigError, DefenseError
from tests.unit.evaluation_items import noisy_picture

TARGET = {
    "files": {"model/model.safetensors": "aa", "model/config.json": "bb"},
    "template": "vicuna_v1",
    "template_text": "USER: <image>\n{prompt} ASSISTANT:",
    "dtype": "float32",
    "attention": "sdpa",
}


def lines(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def fit(tmp_path):
    model = SimpleNamespace(module=torch.nn.Linear(1, 1), host=None, fingerprint=TARGET)
    tensors = {"mean": torch.ones(3, 4), "pca": torch.zeros(3, 4)}
    items = [FittedItem("a/b/1", "fold it", "cc"), FittedItem("", "words")]
    return write_fit(tmp_path / "fit", "cmrm", model, tensors, items, {"image": "blank"})


# ---- anchors


def test_anchors_of_both_kinds_of_file(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(noisy_picture(5, 4, 0))
    path = lines(
        tmp_path / "anchors.jsonl",
        {"text": "fold it", "image": "images/1.png"},
        "",
        {"uid": "made/test/7", "prompt": "and this", "image": None, "benchmark": "made"},
    )
    first, second = read_anchors(path)
    assert (first.uid, first.text, first.picture) == ("", "fold it", tmp_path / "images" / "1.png")
    assert (second.uid, second.text, second.picture) == ("made/test/7", "and this", None)
    assert first.turn(0).picture == noisy_picture(5, 4, 0)
    assert first.turn(0).seed == first.turn(3).seed != second.turn(0).seed
    assert first.fitted().picture_sha256 is not None
    assert second.fitted() == FittedItem("made/test/7", "and this", None)
    modes = [{"uid": "a", "prompt": "x", "image_mode": mode} for mode in ("none", "blank")]
    assert [anchor.uid for anchor in read_anchors(lines(tmp_path / "samples.jsonl", *modes))] == ["a"]
    shown = [{**row, "image": f"{row['image_mode']}.png"} for row in modes]
    shown += [{**modes[0], "image_mode": "real", "image": "images/1.png"}]
    (anchor,) = read_anchors(lines(tmp_path / "samples.jsonl", *shown))
    assert anchor.picture == first.picture, "its own picture, whose size counts, and no other mode's"
    below = read_anchors(lines(tmp_path / "b.jsonl", {"text": "x", "image": "1.png"}), tmp_path / "images")
    assert below[0].picture == first.picture
    (pair,) = read_opposed(lines(tmp_path / "pairs.jsonl", {"harmful": "h", "harmless": "l"}))
    assert [item.text for item in pair.fitted()] == ["h", "l"]


def test_anchors_that_are_none(tmp_path):
    torn = tmp_path / "torn.png"
    torn.write_bytes(noisy_picture(9, 9, 0)[:40])
    cases = {
        r"Line 1 of .* shows the picture .*gone\.png, but there is no such file: put it there, or": [
            {"text": "x", "image": "gone.png"}
        ],
        r"shows the picture .*torn\.png, but it does not open": [{"text": "x", "image": "torn.png"}],
        r"Line 2 of .* has no words under 'prompt'": [{"text": "x"}, {"words": "y"}],
        r"Line 1 of .* has no words under 'text'": [{"text": " "}],
        r"Line 1 of .* is no JSON object": ["{"],
        r"Line 2 of .* is a once more, with other words": [
            {"uid": "a", "text": "x"},
            {"uid": "a", "text": "y"},
        ],
        r"but it holds none: give at least one": [""],
    }
    for message, rows in cases.items():
        with pytest.raises(DefenseError, match=message):
            read_anchors(lines(tmp_path / "anchors.jsonl", *rows))
    with pytest.raises(DefenseError, match=r"Anchors were to be read from .*none\.jsonl, but"):
        read_anchors(tmp_path / "none.jsonl")
    with pytest.raises(DefenseError, match=r"Line 1 of .* has no words under 'harmless'"):
        read_opposed(lines(tmp_path / "pairs.jsonl", {"harmful": "x"}))


# ---- fitted folders


def test_a_fit_is_read_as_it_was_written(fit):
    again = read_fit(fit.folder, "cmrm")
    assert again.about == fit.about
    again.check(TARGET)
    assert torch.equal(again.tensors(3)["mean"], torch.ones(3, 4))
    assert again.fitted_on() == [FittedItem("a/b/1", "fold it", "cc"), FittedItem("", "words")]
    assert {path.name for path in fit.folder.iterdir()} == {"fit.json", "fit.safetensors"}
    made = Cmrm(fit.folder).fingerprint(TARGET)
    assert (made["vectors"], made["image"]) == (fit.fingerprint, "blank")


def test_vectors_of_another_model_template_or_number_of_layers(fit):
    other = {**TARGET, "files": {**TARGET["files"], "model/model.safetensors": "zz"}}
    with pytest.raises(DefenseError, match=r"another model \(model/model\.safetensors\): fit one to this"):
        Cmrm(fit.folder).fingerprint(other)
    with pytest.raises(DefenseError, match="another model"):
        Cmrm(fit.folder).fingerprint({"kind": "endpoint"})
    template = {**TARGET, "template": "plain", "template_text": "<image>{prompt}"}
    with pytest.raises(DefenseError, match=r"another template \('vicuna_v1', here 'plain'\): ask with that"):
        Cmrm(fit.folder).fingerprint(template)
    with pytest.raises(DefenseError, match="decoder of 3 layers, but this one has 2: fit one to this"):
        read_fit(fit.folder, "cmrm").tensors(2)


def test_a_folder_that_is_no_fit_of_this_defence(fit, tmp_path):
    with pytest.raises(DefenseError, match=r"no fit\.json can be read there .* `regap defense fit cmrm`"):
        Cmrm(tmp_path / "none").fingerprint(TARGET)
    with pytest.raises(DefenseError, match=r"was fitted for 'cmrm' .* but vlm_guard"):
        make_stack("vlm_guard", {"vlm_guard.directions": str(fit.folder)}).fingerprint(TARGET)
    changed = tmp_path / "changed"
    shutil.copytree(fit.folder, changed)
    data = bytearray((changed / "fit.safetensors").read_bytes())
    data[-1] ^= 1
    (changed / "fit.safetensors").write_bytes(data)
    with pytest.raises(DefenseError, match=r"fit\.safetensors changed since it was fitted: fit it again"):
        read_fit(changed, "cmrm").tensors(3)
    (changed / "fit.safetensors").unlink()
    with pytest.raises(DefenseError, match=r"holds no fit\.safetensors"):
        read_fit(changed, "cmrm").tensors(3)


def test_settings_that_contradict_each_other(fit):
    with pytest.raises(ConfigError, match="without vectors: fit them with `regap defense fit cmrm` and give"):
        make_stack("cmrm")
    with pytest.raises(ConfigError, match=r"vectors=.* and of=sample, but a sample's own"):
        make_stack("cmrm", {"cmrm.vectors": str(fit.folder), "cmrm.of": "sample"})
    with pytest.raises(ConfigError, match=r"image is noise, but .* was fitted with blank: leave it out, or"):
        Cmrm(fit.folder, image="noise").fingerprint(TARGET)
    with pytest.raises(ConfigError, match="vlm_guard needs directions"):
        make_stack("vlm_guard")


# ---- prompts


def test_the_placeholder_and_its_newline_are_all_that_differs():
    assert cut_between("USER: <image>\nred ? A:", "USER: red ? A:") == "<image>\n"
    assert cut_between("U\n<image>\nred ?", "U\nred ?") == "<image>\n"
    assert cut_between("U <s><image></s>\nred ?", "U red ?") == "<s><image></s>\n"
    assert cut_between("U [IMG]red ?", "U red ?") == "[IMG]"


def test_a_prompt_that_keeps_the_newline_or_says_something_else():
    with pytest.raises(DefenseError, match=r"newline behind the picture stays .*'USER: \\nred \? A:'"):
        cut_between("USER: <image>\nred ? A:", "USER: \nred ? A:")
    with pytest.raises(DefenseError, match="newline behind the picture stays"):
        cut_between("USER: <image> \nred ? A:", "USER:  \nred ? A:")
    for alone in ("USER: look. red ? A:", "USER: <image>\nred ? A:", "SYSTEM. USER: red ? A:"):
        with pytest.raises(DefenseError, match="differ in more than the picture"):
            cut_between("USER: <image>\nred ? A:", alone)


def test_layers_by_their_numbers():
    assert layer_numbers("all", 3) == [0, 1, 2]
    assert layer_numbers("3, 1-2", 4) == [0, 1, 2]
    for text in ("", "0", "5", "2-1", "x", "1-", "-2"):
        with pytest.raises(ConfigError, match="this decoder has 1 to 4: write all, or numbers"):
            layer_numbers(text, 4)
