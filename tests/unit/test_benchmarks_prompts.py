"""What a model is asked and what a judge is told, by the rules and traps of each benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_layouts import LAYOUTS, nonsense, small

from regap_patch.errors import BenchmarkError
from regap_patch.records import IMAGE_MODES, Sample
from regap_patch.safety.benchmarks import adapter_of
from regap_patch.safety.benchmarks.near_duplicates import groups
from regap_patch.safety.image_modes import in_mode
from regap_patch.safety.tasks import Asked, Task


@pytest.fixture
def root(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    LAYOUTS[request.param](tmp_path, small(adapter_of(request.param).COUNTS))
    return tmp_path


def items(name: str, root: Path, split: str | None = None) -> dict[str, Sample]:
    return {item.uid: item for item in adapter_of(name).samples(root, split=split)}


@pytest.mark.parametrize("root", ["mm_safetybench"], indirect=True)
def test_mm_safetybench_asks_the_field_of_each_picture(root: Path):
    every = items("mm_safetybench", root)
    assert len(every) == 13 * 4 * 3
    of_one = {
        kind: every[f"mm_safetybench/test/01-Illegal_Activitiy/2/{kind}"]
        for kind in ("SD", "SD_TYPO", "TYPO")
    }
    assert of_one["SD"].prompt == "about the scene 2?"
    assert of_one["SD_TYPO"].prompt == of_one["TYPO"].prompt == "about the phrase 2?"
    assert len({item.cluster for item in every.values()}) == 13 * 4
    for kind, item in of_one.items():
        assert item.image == f"data/imgs/01-Illegal_Activitiy/{kind}/2.jpg"
        assert item.scenario == "01-Illegal_Activitiy"
        assert item.cluster == of_one["SD"].cluster
        assert item.judge_question == f"plain {nonsense(2)} 0?"
        plain, picture = in_mode(item, "none", root)
        assert (plain.prompt, picture) == (item.judge_question, None)
        assert in_mode(item, "words", root)[0].prompt == item.judge_question
        assert in_mode(item, "blank", root)[0].prompt == item.judge_question
        assert in_mode(item, "real", root)[0].prompt == item.prompt


@pytest.mark.parametrize("root", ["mm_safetybench"], indirect=True)
def test_mm_safetybench_has_parts_whose_items_keep_their_uids(root: Path):
    every = items("mm_safetybench", root)
    for split, count in {"SD": 52, "TYPO": 52, "SD_TYPO": 52, "harmful": 8 * 12, "tiny": 39}.items():
        part = items("mm_safetybench", root, split)
        assert len(part) == count
        assert part.items() <= every.items()
    harmful = {item.scenario[:2] for item in items("mm_safetybench", root, "harmful").values()}
    assert harmful == {"01", "02", "03", "04", "05", "06", "07", "09"}
    apart = {item.scenario[:2] for item in every.values() if item.meta.get("block") == "disclaimers"}
    assert apart == {"08", "10", "11", "12", "13"}


@pytest.mark.parametrize("root", ["mm_safetybench"], indirect=True)
def test_mm_safetybench_does_without_no_scenario(root: Path):
    (root / "data/processed_questions/07-Sex.json").unlink()
    with pytest.raises(BenchmarkError, match=r"it has no data/processed_questions/07-Sex.json"):
        items("mm_safetybench", root)


@pytest.mark.parametrize("root", ["mm_safetybench"], indirect=True)
def test_a_tiny_list_of_other_data_is_named(root: Path):
    (root / "TinyVersion_ID_List.json").write_text('[{"Scenario": "06-Fraud", "Sampled_ID_List": [99]}]')
    with pytest.raises(BenchmarkError, match="names question 99 of 06-Fraud, which is not there"):
        items("mm_safetybench", root, "tiny")


def test_advbench_resamples_near_duplicates_together(tmp_path: Path):
    rows = [
        "goal,target",
        "paint the tall red fence,x",
        "please paint the tall red fence now,x",
        "bake a cake,x",
    ]
    (tmp_path / "harmful_behaviors.csv").write_text("\n".join(rows) + "\n")
    made = list(adapter_of("advbench").samples(tmp_path))
    assert [item.cluster.rsplit("/", 1)[1] for item in made] == ["0000", "0000", "0002"]
    notes = adapter_of("advbench").check(tmp_path, expected={"test": 3}).notes
    assert any("2 groups of near-duplicates" in note for note in notes)


def test_groups_do_not_grow_along_chains():
    texts = ["one two three four", "two three four five", "four five six seven", "the of and"]
    alike = {(a, b): len(set(a.split()) & set(b.split())) for a in texts for b in texts}
    assert alike[texts[0], texts[1]] == 3
    assert groups(texts) == [0, 0, 2, 3]
    assert groups(texts, alike=0.99) == [0, 1, 2, 3]


@pytest.mark.parametrize("root", ["advbench"], indirect=True)
def test_a_set_without_pictures_takes_neutral_ones(root: Path):
    item = next(adapter_of("advbench").samples(root))
    for mode in ("blank", "black", "grey", "noise"):
        made, picture = in_mode(item, mode, root)
        assert made.prompt == item.prompt
        assert picture is not None
    with pytest.raises(BenchmarkError, match="has none"):
        in_mode(item, "real", root)


@pytest.mark.parametrize("root", ["vlsafe"], indirect=True)
def test_vlsafe_asks_its_query_about_its_photograph(root: Path):
    every = items("vlsafe", root)
    first = every["vlsafe/test/0000"]
    assert first.prompt == first.judge_question == f"how to {nonsense(0)}?"
    assert first.image == "train2017/000000000000.jpg"
    assert first.cluster == every["vlsafe/test/0001"].cluster != every["vlsafe/test/0002"].cluster


@pytest.mark.parametrize("root", ["jailbreakbench"], indirect=True)
def test_jailbreakbench_has_a_harmful_and_a_benign_half(root: Path):
    kinds = {item.uid.split("/")[1]: item.kind for item in items("jailbreakbench", root).values()}
    assert kinds == {"harmful": "harm", "benign": "benign"}
    assert {item.kind for item in items("jailbreakbench", root, "benign").values()} == {"benign"}
    assert len(items("jailbreakbench", root, "harmful")) == 4


@pytest.mark.parametrize("root", ["xstest"], indirect=True)
def test_xstest_tells_safe_from_unsafe_by_its_label(root: Path):
    every = items("xstest", root).values()
    assert {(item.scenario, item.kind) for item in every} == {
        ("homonyms", "benign"),
        ("contrast_homonyms", "harm"),
    }


@pytest.mark.parametrize("root", ["vlguard"], indirect=True)
def test_vlguard_has_three_subsets_of_two_kinds_of_pictures(root: Path):
    every = items("vlguard", root).values()
    kinds = {(item.scenario, item.kind, item.prompt.split()[0]) for item in every}
    assert kinds == {
        ("unsafes", "harm", "instruction"),
        ("safe_unsafes", "harm", "unsafe_instruction"),
        ("safe_safes", "benign", "safe_instruction"),
    }
    assert len(every) == 12
    assert len({item.cluster for item in every}) == 8  # one a picture
    assert len(items("vlguard", root, "unsafes")) == 4


@pytest.mark.parametrize("root", ["vlguard"], indirect=True)
def test_a_safe_picture_without_its_unsafe_instruction_is_named(root: Path):
    rows = json.loads((root / "test.json").read_text())
    rows[0]["instr-resp"] = rows[0]["instr-resp"][:1]
    (root / "test.json").write_text(json.dumps(rows))
    with pytest.raises(BenchmarkError, match=r"item t0000 of test.json has no unsafe_instruction"):
        items("vlguard", root)


@pytest.mark.parametrize("root", ["mossbench"], indirect=True)
def test_mossbench_is_benign_and_knows_its_stimuli_by_name(root: Path):
    every = items("mossbench", root)
    assert {item.kind for item in every.values()} == {"benign"}
    assert every["mossbench/test/1"].scenario == "Exaggerated Risk"
    assert every["mossbench/test/12"].scenario == "Counterintuitive Interpretation"


@pytest.mark.parametrize("root", ["mossbench"], indirect=True)
def test_mossbench_takes_the_hubs_list_and_refuses_another_stimulus(root: Path):
    before, file = items("mossbench", root), root / "data/images_information/information.json"
    rows = list(json.loads(file.read_text()).values())
    file.write_text(json.dumps(rows))
    assert items("mossbench", root) == before
    rows[0]["metadata"]["over"] = "type 9"
    file.write_text(json.dumps(rows))
    with pytest.raises(BenchmarkError, match=r"item 1 .* has the type 'type 9'"):
        items("mossbench", root)


@pytest.mark.parametrize("root", ["textvqa"], indirect=True)
def test_textvqa_asks_with_and_without_ocr_tokens(root: Path):
    given = items("textvqa", root)["textvqa/val/0001"]
    plain = items("textvqa", root, "val_without_ocr")["textvqa/val_without_ocr/0001"]
    assert given.prompt.split("\n")[1].startswith("Reference OCR token:")
    assert plain.prompt.split("\n") == [line for line in given.prompt.split("\n") if "OCR" not in line]
    assert plain.judge_question == given.judge_question == given.prompt.split("\n")[0]
    assert plain.meta == given.meta
    assert given.meta["reference"] == {"answers": ["up"] * 9 + ["down"]}


@pytest.mark.parametrize("root", ["scienceqa"], indirect=True)
def test_scienceqa_asks_for_a_letter_where_there_is_a_picture(root: Path):
    every = items("scienceqa", root)
    assert sorted(every) == [f"scienceqa/test/{identity}" for identity in (1, 3, 5, 7)]
    item = every["scienceqa/test/3"]
    assert item.prompt.split("\n")[-1] == "Answer with the option's letter from the given choices directly."
    assert item.meta["reference"] == {"choices": ["one", "two", "three"], "answer": 1}


@pytest.mark.parametrize("root", ["pope"], indirect=True)
def test_pope_finds_labels_by_picture_and_question(root: Path):
    every = items("pope", root)  # the fixture's labels lie in the opposite order
    assert [item.meta["reference"]["yes"] for item in every.values()] == [True, False] * 6
    (root / "coco/coco_pope_random.json").write_text("")
    with pytest.raises(BenchmarkError, match=r"coco_pope_random.json has no label of question"):
        items("pope", root)


@pytest.mark.parametrize("root", ["mme"], indirect=True)
def test_mme_finds_truths_in_both_layouts_of_its_tasks(root: Path):
    every = items("mme", root)
    for task in ("artwork", "code_reasoning"):
        truths = [every[f"mme/test/{task}/0001.png/{turn}"].meta["reference"]["truth"] for turn in (1, 2)]
        assert truths == ["yes", "no"]
    assert len({item.cluster for item in every.values()}) == len(every) / 2
    (root / "MME_Benchmark_release_version/code_reasoning/0001.txt").write_text("Is it else?\tYes\n")
    with pytest.raises(BenchmarkError, match=r"0001.txt has no Yes or No to the question of code_reasoning"):
        items("mme", root)


@pytest.mark.parametrize("root", list(LAYOUTS), indirect=True)
def test_every_benchmark_can_be_asked_in_every_mode(root: Path, request: pytest.FixtureRequest):
    adapter = adapter_of(request.node.callspec.params["root"])
    modes = tuple(
        mode for mode in IMAGE_MODES if mode not in ("real", "irrelevant") or adapter.BENCHMARK.images
    )
    asked = Asked(Task(adapter, root, modes, limit=6), seed=0).samples
    by_mode = {mode: [item for item in asked if item.image_mode == mode] for mode in modes}
    uids = {item.uid for item in asked}
    assert all({item.uid for item in items} == uids for items in by_mode.values())
    assert all(item.judge_question for item in asked)
    assert len({(item.uid, item.judge_question) for item in asked}) == len(uids)  # whatever the mode


def test_tables_and_turns_of_another_shape_are_one_sentence(tmp_path: Path):
    (tmp_path / "harmful_behaviors.csv").write_text(f"goal,target\n{'x' * 200_000},b\n")
    with pytest.raises(BenchmarkError, match=r"harmful_behaviors.csv is no table \(field larger than"):
        list(adapter_of("advbench").samples(tmp_path))
    for turns in ("x", {"instruction": "x"}, ["x"]):
        row = {"id": "7", "image": "a.png", "safe": True, "instr-resp": turns}
        (tmp_path / "test.json").write_text(json.dumps([row]))
        with pytest.raises(BenchmarkError, match=r"item 7 of test.json has no list of turns in instr-resp"):
            list(adapter_of("vlguard").samples(tmp_path))
