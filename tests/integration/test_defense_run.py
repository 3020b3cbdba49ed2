"""`regap eval run --defense`: every pair in one run; what is written, left out and refused."""

from __future__ import annotations

import json
import shutil
from itertools import combinations
from pathlib import Path

import pytest

from regap_patch.cli import main
from regap_patch.defenses.table import DEFENSES
from regap_patch.safety.folder import RunFolder
from tests.contract.tiny_hf_folder import make_hf_folder
from tests.contract.tiny_llava import make_model
from tests.unit.evaluation_items import make_items

MODES = ("none", "blank", "real")
ITEMS = 6
PAIRS = list(combinations(DEFENSES, 2))
FITTED = (1, 4)  # of the items, by their place


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("llava") / "model"
    make_model(tiny).eval().save_pretrained(path)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(tiny.llama / name, path / name)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_items(tmp_path_factory.mktemp("data") / "custom", ITEMS)


@pytest.fixture(scope="module")
def fits(checkpoint, data, tmp_path_factory):
    """Vectors from inert words that no item has, and from two items."""
    root = tmp_path_factory.mktemp("fits")
    rows = [json.loads(line) for line in (data / "items.jsonl").read_text().splitlines()]
    anchors = [{"text": f"is shape {number} red ?"} for number in range(3)]
    taken = [{"text": rows[place]["prompt"], "image": rows[place]["image"]} for place in FITTED]
    pairs = [{"harmful": f"fold {n} forbidden", "harmless": f"fold {n} plain"} for n in range(3)]
    files = {"anchors": anchors, "taken": taken, "pairs": pairs}
    for name, lines in files.items():
        (root / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for defense, file, folder, *more in (
        ("cmrm", "anchors", "cmrm"),
        ("cmrm", "taken", "taken", "--image_folder", str(data)),
        ("vlm_guard", "pairs", "vlm_guard", "--rank", "2"),
    ):
        line = ["defense", "fit", defense, str(checkpoint), "--anchors", str(root / f"{file}.jsonl")]
        assert main([*line, "--output_path", str(root / folder), "--device", "cpu", *more]) == 0
    return root


@pytest.fixture
def run(checkpoint, data, fits, tmp_path, capsys):
    """Runs a stack, and gives what was said and the folder."""

    def start(defense: str, *more: str, name: str = "run", cmrm: str = "cmrm") -> tuple[str, RunFolder]:
        settings = {
            "cmrm": f"cmrm.vectors={fits / cmrm}",
            "vlm_guard": f"vlm_guard.directions={fits / 'vlm_guard'},vlm_guard.rank=2",
        }
        given = ",".join(value for name, value in settings.items() if name in defense.split("+"))
        line = ["eval", "run", "--model", str(checkpoint), "--tasks", f"custom={data}", "--device", "cpu"]
        line += ["--image_mode", ",".join(MODES), "--gen_kwargs", "max_new_tokens=5", "--batch_size", "4"]
        line += ["--output_path", str(tmp_path / name), "--defense", defense, "--defense_args", given, *more]
        assert main(line) == 0
        return capsys.readouterr().out, RunFolder(tmp_path / name)

    return start


def traces(folder: RunFolder) -> list[dict]:
    files = sorted(folder.root.glob("trace/*/*/steps-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def texts(folder: RunFolder) -> dict[tuple[str, str], str]:
    return {
        (answer.uid, mode): answer.text for mode in MODES for answer in folder.read_answers("custom", mode)
    }


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_pair_runs_and_is_traced_and_timed(run, pair):
    said, folder = run("+".join(reversed(pair)))
    manifest = json.loads(folder.manifest.read_text())
    names = manifest["defense"].split("+")
    assert set(names) == set(pair)
    assert [made["name"] for made in manifest["target"]["defenses"]] == names
    assert "Batches change no answer" in said
    rows = traces(folder)
    assert len(rows) == ITEMS * len(MODES) == len(texts(folder))
    for row in rows:
        assert set(row["defenses"]) == set(names)
        assert row["generations"] >= 1
    for name in names:
        fired = sum(row["defenses"][name]["fired"] for row in rows)
        assert f"The defence {name} fired on {fired} of {len(rows)} answers" in said
        if name != "ecso":
            assert fired > 0
    latency = json.loads(folder.latency(0).read_text())
    assert latency["defense"] == manifest["defense"]
    for kind in ("with a picture", "text alone"):
        row = latency["kinds"][kind]
        assert (len(row["ratios"]), row["items"]) == {"text alone": (2, 6), "with a picture": (4, 12)}[kind]
        assert min(row["seconds_none"], row["seconds_defended"]) > 0  # on a busy machine a ratio may be any
    assert "An answer takes this many times the time of the same without defences:" in said


def test_text_alone_is_left_as_it_is_by_what_needs_a_picture(run):
    _, none = run("", name="none")
    _, defended = run("cmrm+ecso", name="defended")
    plain, after = texts(none), texts(defended)
    assert {key: text for key, text in plain.items() if key[1] == "none"} == {
        key: text for key, text in after.items() if key[1] == "none"
    }


def test_off_is_the_run_that_there_always_was(run, checkpoint, data, tmp_path):
    _, off = run("", name="off")
    manifest = json.loads(off.manifest.read_text())
    assert manifest["defense"] == ""
    assert "defenses" not in manifest["target"]
    assert "left_out" not in manifest
    assert not list(off.root.glob("trace/*/*/steps-*"))
    assert not off.latency(0).exists()
    _, on = run("adashield_s", name="on")
    keys = [{answer.key for answer in folder.read_answers("custom", "real")} for folder in (off, on)]
    assert not keys[0] & keys[1]
    assert {answer.defense for answer in on.read_answers("custom", "real")} == {"adashield_s"}


def test_the_same_line_goes_on_and_shards_give_the_same(run):
    _, whole = run("self_reminder+cmrm", name="whole")
    before = whole.latency(0).read_bytes()
    said, _ = run("self_reminder+cmrm", name="whole")
    assert "0 of 18 items answered now, 18 found answered" in said
    assert whole.latency(0).read_bytes() == before
    for shard in ("1", "0"):
        said, shards = run("self_reminder+cmrm", "--num_shards", "2", "--shard", shard, name="shards")
    assert texts(shards) == texts(whole)
    assert len(traces(shards)) == 18


def test_items_that_were_fitted_on_are_left_out_and_listed(run):
    said, folder = run("cmrm", cmrm="taken")
    uids = [f"custom/test/{place:03d}" for place in FITTED]
    assert json.loads(folder.manifest.read_text())["left_out"] == {"custom": uids}
    assert "2 left out, for the defences were fitted on them" in said
    asked = {uid for uid, _ in texts(folder)}
    assert len(asked) == ITEMS - len(FITTED)
    assert not asked & set(uids)


def test_the_report_says_which_defence_fired_and_what_it_costs(run, capsys):
    _, folder = run("adashield_s+cmrm", cmrm="taken")
    root = str(folder.root)
    assert main(["eval", "judge", root, "--judges", "keyword-own"]) == 0
    assert main(["eval", "score", root]) == 0
    metrics = json.loads((folder.root / "metrics.json").read_text())
    fired = metrics["provenance"]["defended"]["fired"]
    assert fired == {
        "adashield_s": {mode: [4, 4] for mode in MODES},
        "cmrm": {"none": [0, 4], "blank": [4, 4], "real": [4, 4]},
    }
    notes = " ".join(metrics["notes"])
    assert "The defence cmrm fired on 8 of 12 answers (blank 4 of 4, none 0 of 4, real 4 of 4)." in notes
    assert "2 items were left out, for the defences were fitted on them." in notes
    assert main(["eval", "report", root, "--output_path", str(folder.root / "report")]) == 0
    assert "fired on 8 of 12 answers" in (folder.root / "report/report.html").read_text()


def test_sentences(checkpoint, data, tiny, fits, tmp_path, capsys):
    def refused(defense: str, *more: str, model: Path = checkpoint) -> str:
        line = ["eval", "run", "--model", str(model), "--tasks", f"custom={data}", "--device", "cpu"]
        assert main([*line, "--output_path", str(tmp_path / "run"), "--defense", defense, *more]) == 1
        assert not (tmp_path / "run").exists(), "nothing is left half-written"
        return capsys.readouterr().err

    assert "did you mean adashield_s, or one of" in refused("adashild_s+cmrm")
    assert "The defence ecso was named twice in one stack: name each once." in refused("ecso+cmrm+ecso")
    assert "--defense_args ecso.characters=3 was given without" in refused(
        "", "--defense_args", "ecso.characters=3"
    )
    assert "but NAME.SETTING=value is expected" in refused("ecso", "--defense_args", "ecso")
    assert "regap defense fit cmrm" in refused("cmrm")
    folder = make_hf_folder(tiny, tmp_path / "model")
    for name in ("chat_template.jinja", "chat_template.json"):
        (folder / name).unlink(missing_ok=True)
    said = refused("adashield_s", model=folder)
    assert "has no chat template: give one as text with {text} and <image>" in said
    line = [
        "--model_args",
        "base_url=http://127.0.0.1:1/v1,model=m",
        "--defense_args",
        f"cmrm.vectors={fits / 'cmrm'}",
    ]
    assert "http://127.0.0.1:1/v1 is out of reach" in refused("cmrm", *line, model="endpoint")


def test_a_stack_that_the_model_refuses_is_no_run(checkpoint, data, tmp_path, capsys):
    line = ["eval", "run", "--model", str(checkpoint), "--tasks", f"custom={data}", "--device", "cpu"]
    line += ["--gen_kwargs", "max_new_tokens=3", "--batch_size", "4", "--output_path", str(tmp_path / "run")]
    line += ["--defense", "cmrm", "--defense_args"]
    assert main([*line, "cmrm.of=sample,cmrm.layers=1,9"]) == 1
    assert "Layers '1,9' were asked for, but this decoder has 1 to 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*line, "cmrm.of=sample,cmrm.layers=1,2"]) == 0, "the folder is free for the next try"
    defenses = json.loads((tmp_path / "run" / "manifest.json").read_text())["target"]["defenses"]
    assert defenses[0]["layers"] == "1,2"


def test_a_run_that_left_items_out_is_compared_on_the_others(run, tmp_path):
    _, none = run("", name="none")
    _, defended = run("cmrm", cmrm="taken", name="defended")
    for folder in (none, defended):
        assert main(["eval", "judge", str(folder.root), "--judges", "keyword-own"]) == 0
    file = tmp_path / "compared.json"
    assert main(["eval", "compare", str(none.root), str(defended.root), "--output_path", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["left_out"] == [f"custom/test/{place:03d}" for place in FITTED]
    assert {row["pairs"] for row in found["contrasts"]} == {ITEMS - len(FITTED)}
    assert (found["first"]["defense"], found["second"]["defense"]) == ("", "cmrm")
