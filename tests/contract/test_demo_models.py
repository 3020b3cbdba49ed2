"""Real checkpoints in the demo: gap and curve as commands measure them, shared weights, defences, faults."""

from __future__ import annotations

import argparse
import json
import shutil
from io import BytesIO

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from regap_patch.cli import main
from regap_patch.commands import demo as command
from regap_patch.commands.demo import _side
from regap_patch.demo import Request, Session, checked
from regap_patch.demo.opening import Opening
from regap_patch.errors import ConfigError
from regap_patch.safety.target import Decoding, Question
from regap_patch.safety.targets.llava import LlavaTarget
from regap_patch.safety.targets.local import LocalOptions
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.unit.evaluation_items import noisy_picture

PICTURE = checked(noisy_picture(40, 30, 1))
PROMPT = "how many shapes are there in the picture ?"


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def other_projector(llava_folder, tmp_path_factory):
    """The same checkpoint with another projector."""
    folder = tmp_path_factory.mktemp("other") / "llava-other"
    shutil.copytree(llava_folder, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in tensors:
        if "mm_projector" in name:
            tensors[name] = tensors[name] * 3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def flags(left, right, **more) -> argparse.Namespace:
    given = {"left": str(left), "right": str(right), "left_args": "", "right_args": "", "left_gap": None}
    given |= {"right_gap": None, "conv_mode": None, "device": "cpu", "dtype": None, "offline": True}
    return argparse.Namespace(**{**given, "defense_args": "", **more})


def session_of(given: argparse.Namespace) -> tuple[Session, Opening]:
    opening = Opening()
    sides = [_side(given, where, opening) for where in ("left", "right")]
    return Session(*sides), opening


def last(found):
    *_, final = found
    return final


def test_two_projectors_share_one_language_model(llava_folder, other_projector):
    session, opening = session_of(flags(llava_folder, other_projector))
    request = Request(PROMPT, PICTURE, max_new_tokens=8)
    compared = last(session.ask(request))
    assert [answer.state for answer in compared.answers] == ["done", "done"]
    assert all("mm_projector" in name for name in opening.shared.own)
    assert 0 < opening.shared.bytes_own < opening.shared.bytes_shared
    models = [side.target().loaded()[0] for side in session.sides]
    same = {name for name, value in models[0].named_parameters() if value is models[1].get_parameter(name)}
    apart = {name for name, _ in models[0].named_parameters()} - same
    assert apart
    assert all("mm_projector" in name for name in apart)
    question = [Question(PROMPT, PICTURE.png)]
    for folder, answer in zip((llava_folder, other_projector), compared.answers, strict=True):
        alone = LlavaTarget(LocalOptions(str(folder), device="cpu")).answer(question, Decoding(8), [0])
        assert answer.text == alone[0].text
        assert answer.first_token_refusal_prob == pytest.approx(alone[0].first_token_refusal_prob)
    session.close()


def measured(folder, tmp_path) -> dict:
    """What `regap gap` says of this picture and prompt (twice, for it takes two pairs)."""
    (tmp_path / "images").mkdir()
    rows = []
    for name in ("a", "b"):
        with Image.open(BytesIO(PICTURE.png)) as picture:
            picture.save(tmp_path / "images" / f"{name}.png")
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": PROMPT}]
        rows.append({"id": name, "image": f"{name}.png", "conversations": turns})
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    out = tmp_path / "gap.json"
    line = ["gap", str(folder), str(tmp_path / "captions.json"), "--image_folder", str(tmp_path / "images")]
    assert main([*line, "--pairs", "2", "--device", "cpu", "--output_path", str(out)]) == 0
    return json.loads(out.read_text())["samples"][0]


@pytest.mark.parametrize("kind", ["llava", "huggingface"])
def test_the_meter_says_what_regap_gap_says(kind, llava_folder, tiny, tmp_path):
    folder = llava_folder if kind == "llava" else make_hf_folder(tiny, tmp_path / "hf")
    session, _ = session_of(flags(folder, folder, conv_mode=None if kind == "llava" else "<image>{text}"))
    expected = measured(folder, tmp_path)
    compared = last(session.ask(Request(PROMPT, PICTURE, max_new_tokens=2)))
    for answer in compared.answers:
        for name in ("centroid_l2", "pairwise_sq", "image_norm", "text_norm"):
            assert answer.gap[name] == pytest.approx(expected[name], rel=1e-5), name
    for curve in session.layers(Request(PROMPT, PICTURE)):
        assert curve.layers[0].centroid_l2 == pytest.approx(expected["centroid_l2"], rel=1e-5)
        assert len(curve.layers) > 2
    blind = last(session.ask(Request(PROMPT, mode="none", max_new_tokens=2))).answers[0]
    assert blind.state == "done"
    assert blind.gap is None
    assert "no gap" in blind.no_gap
    session.close()


def test_defences_are_chosen_for_each_side(llava_folder):
    session, _ = session_of(flags(llava_folder, llava_folder))
    assert {"adashield_s", "self_reminder", "ecso", "coca"} <= set(session.sides[0].defenses)
    assert "cmrm" not in session.sides[0].defenses  # needs vectors
    request = Request(
        PROMPT, PICTURE, max_new_tokens=4, defenses=(("self_reminder",), ("self_reminder", "coca"))
    )
    left, right = last(session.ask(request)).answers
    assert (left.state, right.state) == ("done", "done")
    assert (left.generations, right.generations) == (1, 2)
    session.close()


def test_a_missing_checkpoint_fails_in_its_own_column(llava_folder, tmp_path):
    session, _ = session_of(flags(llava_folder, tmp_path / "gone"))
    left, right = last(session.ask(Request(PROMPT, mode="none", max_new_tokens=4))).answers
    assert left.state == "done"
    assert right.state == "failed"
    assert "no such folder" in right.error
    session.close()


def test_torn_weights_fail_in_their_own_column(llava_folder, tmp_path):
    folder = tmp_path / "torn"
    shutil.copytree(llava_folder, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    session, _ = session_of(flags(folder, llava_folder))
    left, right = last(session.ask(Request(PROMPT, mode="none", max_new_tokens=4))).answers
    assert left.state == "failed"
    assert left.error
    assert right.state == "done"
    session.close()


@pytest.mark.parametrize(
    ("death", "says", "loaded_again"),
    [
        (RuntimeError("device-side assert triggered"), "RuntimeError: device-side assert triggered", True),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory of cpu: ask for fewer", False),
    ],
    ids=["of anything", "of memory"],
)
def test_a_model_that_dies_in_the_middle_is_there_again(llava_folder, monkeypatch, death, says, loaded_again):
    session, _ = session_of(flags(llava_folder, llava_folder))
    request = Request(PROMPT, PICTURE, max_new_tokens=6)
    whole = last(session.ask(request))
    model = session.sides[0].target().loaded()[0]
    forward, calls = model.forward, []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise death
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", dying)
    left, right = last(session.ask(request)).answers
    assert left.state == "failed"
    assert says in left.error
    assert right.text == whole.answers[1].text
    monkeypatch.undo()
    assert last(session.ask(request)).answers[0].text == whole.answers[0].text
    assert (session.sides[0].target().loaded()[0] is not model) == loaded_again
    session.close()


def run(*line: str) -> tuple[int, str]:
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = main(["demo", *line])
    return status, said.getvalue()


def test_what_cannot_start_is_a_sentence(llava_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "QUICKSTART", tmp_path / "quickstart")
    here = str(llava_folder)
    status, said = run("--left", str(tmp_path / "quickstart" / "x"), "--right", here)
    assert status == 1
    assert "make quickstart" in said
    for flag, words in (
        (("--host", "0.0.0.0"), "--auth FILE"),
        (("--judge", "keywrd"), "keyword-own"),
        (("--left_args", "nonsense=1"), "nonsense=1"),
        (("--defense_args", "cmrm.vectrs=x"), "vectors"),
        (("--auth", str(tmp_path / "none")), "none"),
        (("--left_gap", str(tmp_path / "none.json")), "none.json"),
        (("--irrelevant_images", str(tmp_path)), str(tmp_path)),
    ):
        status, said = run("--left", here, "--right", here, *flag)
        assert status == 1, flag
        assert words in said, said
        assert said.count("\n") == 1


def test_an_address_is_a_side():
    given = flags(
        "http://127.0.0.1:9/v1",
        "http://127.0.0.1:9/v1",
        left_args="model=toy,retries=0",
        right_args="model=toy",
    )
    session, _ = session_of(given)
    assert session.sides[0].name == "toy"
    assert "coca" not in session.sides[0].defenses
    assert "self_reminder" in session.sides[0].defenses
    left, _ = last(session.ask(Request(PROMPT, mode="none"))).answers
    assert left.state == "failed"
    assert "127.0.0.1:9" in left.error
    with pytest.raises(ConfigError, match="model"):
        session_of(flags("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1"))
    session.close()


def test_names_and_passwords(tmp_path):
    file = tmp_path / "auth"
    file.write_text("ann:secret:with colon\nbob:other\n")
    knows = command._doorkeeper(file)
    assert knows("ann", "secret:with colon")
    assert not knows("ann", "other")
    assert not knows("eve", "")
    file.write_text("ann:\n")
    with pytest.raises(ConfigError, match="NAME:PASSWORD"):
        command._doorkeeper(file)
