"""`regap gap`, `regap mir`, `regap mir compare` and `regap plot` on folders, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_llava import make_model

from regap_patch.cli import main
from regap_patch.gap import combine, layer_term
from regap_patch.measure.pairs import choose_pairs
from regap_patch.measure.plan import SHAPES, plan_mir
from tests.contract.stored_states import hidden_states

PAIRS = 6


@pytest.fixture(scope="module")
def runs(llava_folder: Path, stage_one_folder: Path, tmp_path_factory) -> Path:
    """What training leaves: both stages, and beside them things that are no checkpoints."""
    root = tmp_path_factory.mktemp("runs") / "some"
    shutil.copytree(llava_folder, root / "llava-finetune")
    shutil.copytree(stage_one_folder, root / "llava-pretrain")
    (root / "logs").mkdir()
    (root / "results.json").write_text("{}")
    return root


@pytest.fixture
def measure(runs: Path, tiny, tmp_path: Path, capsys):
    """Run `regap mir` on checkpoints: (status, what it said, what it complained of)."""

    def run(*flags: object, models=("llava-finetune",), **changed: object) -> tuple[int, str, str]:
        given = {
            "--images": tiny.world.images,
            "--texts": tiny.world.pretrain_json,
            "--pairs": PAIRS,
            "--model_base": tiny.llama,
            "--device": "cpu",
            "--output_path": tmp_path / "out",
            **{f"--{name}": value for name, value in changed.items()},
        }
        words = [word for pair in given.items() for word in pair]
        status = main(["mir", *map(str, (*(runs / name for name in models), *words, *flags))])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_a_folder_is_measured_as_if_every_state_were_stored(measure, runs: Path, tiny, tmp_path: Path):
    """End to end: pairs, template, pixels and positions are made here a second time, by LLaVA's own means."""
    from llava.mm_utils import process_images, tokenizer_image_token
    from llava.model.builder import load_pretrained_model

    status, said, _ = measure("--layers", "--jackknife", 0)
    found = read(tmp_path / "out/llava-finetune.json")
    assert status == 0
    assert f"{found['mir']['value']:.4f}" in said
    tokenizer, model, processor, _ = load_pretrained_model(
        str(runs / "llava-finetune"), device="cpu", torch_dtype=torch.float32
    )
    chosen = choose_pairs(tiny.world.images, tiny.world.pretrain_json, count=PAIRS)
    rows: list[list[tuple]] = []
    for pair in chosen.pairs:
        prompt = (
            "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
            "helpful, detailed, and polite answers to the user's questions. "
            f"USER: <image>\n ASSISTANT: {pair.text}</s>"
        )
        ids = tokenizer_image_token(prompt, tokenizer, return_tensors="pt")
        pixels = process_images([Image.open(pair.images[0]).convert("RGB")], processor, model.config)
        start = int((ids == -200).nonzero())
        states = hidden_states(model, {"input_ids": ids[None], "images": pixels})
        patches = states[0].shape[1] - len(ids) + 1
        rows.append([(state[0, start : start + patches], state[0, start + patches :]) for state in states])
    terms = [
        layer_term([r[layer][0] for r in rows], [r[layer][1] for r in rows], errors=True)
        for layer in range(len(rows[0]))
    ]
    expected = combine(terms[1:], layer_zero=terms[0])
    assert found["mir"]["value"] == expected.value
    assert found["mir"]["stderr"] == expected.stderr
    assert found["influence"] == expected.influence.tolist()
    assert [layer["frechet"] for layer in found["layers"]] == [term.frechet for term in terms[1:]]
    assert found["layer_zero"]["frechet"] == terms[0].frechet
    assert found["data"]["template"].endswith("USER: <image>\n ASSISTANT: {text}</s>")
    assert found["rows"] == {
        kind: sum(len(r[0][side]) for r in rows) for side, kind in enumerate(("image", "text"))
    }


def test_what_a_result_says_of_where_it_comes_from(measure, tiny, tmp_path: Path):
    assert measure(pairs="3,6", project_layers="0,-1", compat="mir-accurate")[0] == 0
    found = read(tmp_path / "out/llava-finetune.json")
    assert found["schema"] == "regap.mir/1"
    assert found["data"]["pairs"] == PAIRS
    assert found["data"]["images"]["source"] == str(tiny.world.images)
    assert {len(found["data"][kind]["sha256"]) for kind in ("images", "texts")} == {64}
    assert (found["data"]["seed"], found["data"]["pairing"]) == (0, "unrelated")
    assert (found["data"]["max_text_tokens"], found["data"]["texts_cut"]) == (1024, 0)
    assert len(found["data"]["names"]) == len(found["influence"]) == PAIRS
    assert [at["pairs"] for at in found["curve"]] == [3, 6]
    assert found["evaluation"] == {"mode": "layer_major"}
    assert (found["host"], found["checkpoint"]["class"]) == ("llava", "LlavaLlamaForCausalLM")
    assert found["checkpoint"]["precision"] == "float32"
    assert [picture["layer"] for picture in found["projections"]] == [0, len(found["layers"])]
    assert set(found["compat"]) == {"mir-accurate"}
    assert {"regap", "torch", "transformers"} <= set(found["versions"])
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/llava-finetune.json"]


def test_several_checkpoints_resume_compare_and_plot(measure, runs: Path, tiny, tmp_path: Path, capsys):
    models = sorted(path.name for path in runs.iterdir())
    status, said, _ = measure(models=models)
    assert status == 0
    assert "logs: passed over, no config.json" in said
    assert "minus the first" in said
    files = {name: tmp_path / f"out/{name}.json" for name in ("llava-finetune", "llava-pretrain")}
    before = {name: (file.stat().st_mtime_ns, file.read_bytes()) for name, file in files.items()}
    status, said, _ = measure(models=models)
    assert status == 0
    assert said.count("done before") == 2
    assert {name: (file.stat().st_mtime_ns, file.read_bytes()) for name, file in files.items()} == before
    assert measure(models=models, seed=1)[1].count("done before") == 0
    assert main(["mir", "compare", *map(str, files.values())]) == 0
    sentence = capsys.readouterr().out
    one, two = (read(file) for file in files.values())
    influence = torch.tensor(two["influence"]) - torch.tensor(one["influence"])
    half = 1.959964 * float(influence.std()) / len(influence) ** 0.5
    difference = two["mir"]["corrected"] - one["mir"]["corrected"]
    assert f"{difference:+.4f}, 95% interval {difference - half:+.4f} to {difference + half:+.4f}" in sentence
    target = tmp_path / "difference.json"
    assert main(["mir", "compare", *map(str, files.values()), "--output_path", str(target)]) == 0
    assert read(target)["difference"] == pytest.approx(difference)
    picture = tmp_path / "mir.svg"
    assert main(["plot", *map(str, files.values()), "--output_path", str(picture)]) == 0
    assert {"llava-finetune", "llava-pretrain"} <= set(picture.read_text().replace("<", ">").split(">"))


def test_a_changed_checkpoint_is_measured_again(measure, runs: Path, tmp_path: Path):
    copy = shutil.copytree(runs / "llava-finetune", runs.parent / "changing", dirs_exist_ok=True)
    assert "done before" not in measure(models=[copy])[1]
    assert "done before" in measure(models=[copy])[1]
    config = read(copy / "config.json")
    (copy / "config.json").write_text(json.dumps({**config, "note": "another"}))
    assert "done before" not in measure(models=[copy])[1]


def test_a_projector_is_measured_again_when_its_base_changed(measure, tiny, tmp_path: Path):
    base = shutil.copytree(tiny.llama, tmp_path / "base")
    models = ["llava-pretrain"]
    assert "done before" not in measure(models=models, model_base=base)[1]
    assert "done before" in measure(models=models, model_base=base)[1]
    config = read(base / "config.json")
    (base / "config.json").write_text(json.dumps({**config, "note": "another"}))
    assert "done before" not in measure(models=models, model_base=base)[1]


def test_texts_are_cut_where_asked(measure, tmp_path: Path):
    measure(max_text_tokens=4)
    short = read(tmp_path / "out/llava-finetune.json")
    measure(max_text_tokens=0, output_path=tmp_path / "whole.json")
    whole = read(tmp_path / "whole.json")
    assert (short["data"]["texts_cut"], whole["data"]["texts_cut"]) == (PAIRS, 0)
    assert short["rows"]["text"] < whole["rows"]["text"]
    assert short["rows"]["image"] == whole["rows"]["image"]


def test_tiles_of_a_picture_are_all_image_rows(measure, tiny, tmp_path: Path):
    """A square picture on a grid of 2 x 2 tiles: an overview of 16 patches, 64 of the grid, 8 newlines."""
    model = make_model(tiny, mm_patch_merge_type="spatial_unpad")
    model.config.image_aspect_ratio, model.config.image_grid_pinpoints = "anyres", [[112, 112]]
    folder = tmp_path / "llava-tiles"
    model.save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((tiny.llama / name).read_bytes())
    assert measure(models=[folder])[0] == 0
    assert read(tmp_path / "out/llava-tiles.json")["rows"]["image"] == PAIRS * 80


def test_gap_before_and_after_on_the_same_pairs(runs: Path, tiny, tmp_path: Path, capsys):
    flags = ["--image_folder", tiny.world.images, "--model_base", tiny.llama, "--pairs", 5, "--device", "cpu"]
    models = [runs / "llava-pretrain", runs / "llava-finetune"]
    words = ["gap", *models, tiny.world.pretrain_json, *flags, "--output_path", tmp_path]
    assert main([*map(str, words)]) == 0
    said = capsys.readouterr().out
    found = [read(tmp_path / f"{model.name}.json") for model in models]
    for result in found:
        assert result["schema"] == "regap.gap/1"
        assert len(result["samples"]) == 5
        values = torch.tensor([sample["centroid_l2"] for sample in result["samples"]])
        assert result["mean"]["centroid_l2"] == pytest.approx(values.mean().item())
        assert result["stderr"]["centroid_l2"] == pytest.approx(values.std().item() / 5**0.5, rel=1e-4)
        assert f"{result['mean']['centroid_l2']:.4g} ± " in said
        sample = result["samples"][0]
        split = sample["centroid_l2"] ** 2 + sample["image_trace"] + sample["text_trace"]
        assert sample["pairwise_sq"] == pytest.approx(split, rel=1e-4)
    assert found[0]["data"] == found[1]["data"]
    assert main([*map(str, words)]) == 0
    assert capsys.readouterr().out.count("done before") == 2


def test_runs_that_cannot_be_compared(measure, tiny, tmp_path: Path, capsys):
    variants = {
        "count": {"pairs": 5},
        "images": {"images": tiny.world.pretrain_json, "image_folder": tiny.world.images},
        "texts": {"texts": tiny.world.finetune_json},
        "template": {"template": "llava_v0"},
        "cut": {"max_text_tokens": 5},
        "stream": {"evaluation": "streaming"},
    }
    base = tmp_path / "base.json"
    measure(output_path=base)
    sentences = {
        "count": "they differ in the number of pairs (6 and 5)",
        "images": "they differ in the images (",
        "texts": "they differ in the texts (",
        "template": "they differ in the template (",
        "cut": "they differ in the length at which texts are cut (1024 and 5)",
        "stream": "it holds no influence of its pairs (it was taken in the streaming mode)",
    }
    for name, changed in variants.items():
        other = tmp_path / f"{name}.json"
        assert measure(output_path=other, **changed)[0] == 0
        assert main(["mir", "compare", str(base), str(other)]) == 1
        assert sentences[name] in capsys.readouterr().err
    deeper = {**read(base), "layers": read(base)["layers"] * 2}
    other.write_text(json.dumps(deeper))
    assert main(["mir", "compare", str(base), str(other)]) == 1
    assert "MIR grows with depth" in capsys.readouterr().err
    for wrong, sentence in (
        ("{", "was to be read as regap.mir/1"),
        ('{"schema": "regap.gap/1"}', "its schema is"),
    ):
        other.write_text(wrong)
        assert main(["mir", "compare", str(base), str(other)]) == 1
        assert sentence in capsys.readouterr().err
    assert main(["mir", "compare", str(base)]) == 1
    assert "takes two mir.json files, but got 1" in capsys.readouterr().err


def test_what_cannot_be_measured_is_one_sentence_and_leaves_nothing(
    measure, runs: Path, tiny, tmp_path: Path
):
    broken = tmp_path / "broken"
    for number in range(PAIRS):
        (broken / f"{number}.png").parent.mkdir(exist_ok=True)
        (broken / f"{number}.png").write_bytes(b"no picture")
    story = tmp_path / "stories/one.story"
    story.parent.mkdir()
    story.write_text("@highlight\n\nOnly a summary.\n")
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([{"conversations": [{"from": "gpt", "value": ""}]}] * PAIRS))
    cases = [
        (["llava-finetune"], {"images": broken}, r".png cannot be read (UnidentifiedImageError"),
        (["llava-finetune"], {"texts": story.parent}, "has none before its first @highlight"),
        (["llava-finetune"], {"texts": empty}, "was drawn, but it is empty"),
        (["llava-finetune"], {"pairs": 1000}, "1000 pairs were asked for, but"),
        (["llava-finetune"], {"pairs": "many"}, "--pairs='many' cannot be read"),
        (["llava-finetune"], {"pairs": ","}, "--pairs=',' was asked for, but MIR takes at least 2 pairs"),
        (["llava-finetune"], {"pairs": "1,6"}, "MIR takes at least 2 pairs"),
        (["llava-finetune"], {"jackknife": 1}, "--jackknife=1 was asked for: give 2 groups or more, or 0"),
        (["llava-finetune"], {"template": "no_such"}, "The template 'no_such' was asked for, but LLaVA has"),
        ([tiny.llama], {}, "No known host fits"),
        (["logs"], {}, "no config.json can be read there"),
        (["logs", "results.json"], {}, "None of the 2 paths is a vision-language checkpoint"),
        (["llava-finetune", "llava-pretrain"], {"output_path": tmp_path / "one.json"}, "to the one file"),
        (["llava-pretrain"], {"model_base": tmp_path}, "llava-pretrain cannot be loaded: "),
    ]
    for models, changed, sentence in cases:
        status, _, complaint = measure(models=models, **changed)
        assert status == 1, sentence
        assert complaint.splitlines()[-1].startswith("regap mir: "), complaint
        assert sentence in complaint
        assert not (tmp_path / "out").exists()
    assert main(["mir"]) == 1


def test_the_plan_is_arithmetic(capsys):
    """By hand, for 7B: 100 pairs of 35 + 576 + 700 positions."""
    found, shape = plan_mir("7b"), SHAPES["7b"]
    assert shape.layer_parameters * 32 == 6_476_005_376  # LLaMA-7B without embeddings and norms
    positions, rows = 35 + 576 + 700, 100 * (576 + 700)
    linear = 2 * 6_476_005_376 * positions * 100
    attention = 32 * 100 * 4 * positions**2 * 4096
    assert found.forward == linear + attention
    assert found.forward == pytest.approx(1.79e15, rel=0.01)
    assert found.tower == pytest.approx(100 * 2 * 0.29e9 * 577, rel=0.1)
    assert found.covariances == 32 * rows * 4096**2
    assert found.roots == 32 * 3 * 4096**3
    assert found.states == 100 * positions * 4096 * 2
    assert found.stored == 33 * found.states
    assert found.share == pytest.approx((68.5e12 + 6.6e12) / (1.788e15 + 0.037e15), rel=0.02)
    assert plan_mir("13b").layer * 40 == pytest.approx(2 * 12.69e9, rel=0.01)
    assert main(["mir", "--plan", "7b"]) == 0
    said = capsys.readouterr().out
    page = Path(__file__).parents[2].joinpath("docs/measuring.md").read_text()
    assert said in page
    assert main(["mir", "--plan", "13b"]) == 0
    assert capsys.readouterr().out in page
    assert main(["mir", "--plan", "70b"]) == 1
    assert "choose one of 7b, 13b" in capsys.readouterr().err
