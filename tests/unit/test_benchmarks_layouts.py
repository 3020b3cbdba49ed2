"""Each adapter reads the layout of its data, and `check` says in a sentence what is wrong with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from benchmark_layouts import LAYOUTS, PICTURE, small

from regap_patch.errors import BenchmarkError
from regap_patch.records import Sample
from regap_patch.safety.benchmarks import BENCHMARKS, adapter_of

ITEMS = {
    "mm_safetybench": 5040,
    "figstep": 500,
    "vlsafe": 1110,
    "vlguard": 442 + 2 * 558,
    "advbench": 520,
    "jailbreakbench": 200,
    "xstest": 450,
    "mossbench": 300,
    "pope": 8910,
    "scienceqa": 2017,
    "textvqa": 5000,
    "mme": 2374,
}
"""Items of the default split, as published."""

RENAMED = {
    "mm_safetybench": ("data/processed_questions/02-HateSpeech.json", "Rephrased Question(SD)"),
    "figstep": ("data/question/safebench.csv", "instruction"),
    "vlsafe": ("VLSafe/harmlessness_examine.jsonl", "query"),
    "vlguard": ("test.json", "instr-resp"),
    "advbench": ("harmful_behaviors.csv", "goal"),
    "jailbreakbench": ("data/benign-behaviors.csv", "Category"),
    "xstest": ("xstest_prompts.csv", "label"),
    "mossbench": ("data/images_information/information.json", "question"),
    "pope": ("llava_pope_test.jsonl", "category"),
    "scienceqa": ("problems.json", "choices"),
    "textvqa": ("TextVQA_0.5.1_val.json", "answers"),
    "mme": ("llava_mme.jsonl", "question_id"),
}
"""A file, and a column or field of it."""

NAMES = tuple(LAYOUTS)


def made(tmp_path: Path, name: str) -> Path:
    root = tmp_path / name
    root.mkdir()
    LAYOUTS[name](root, small(adapter_of(name).COUNTS))
    return root


def small_check(name: str, root: Path):
    adapter = adapter_of(name)
    return adapter.check(root, expected=small(adapter.COUNTS))


def refusal(name: str, root: Path, **expected) -> str:
    with pytest.raises(BenchmarkError) as caught:
        adapter_of(name).check(root, **expected)
    sentence = str(caught.value)
    assert sentence.startswith(f"The benchmark {name} was to be read from {root}, but ")
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def test_every_published_benchmark_has_a_layout_here():
    assert set(NAMES) == set(BENCHMARKS) - {"custom", "world"}


@pytest.mark.parametrize("name", NAMES)
def test_data_of_the_published_size_pass(tmp_path: Path, name: str):
    adapter = adapter_of(name)
    LAYOUTS[name](tmp_path, adapter.COUNTS)
    found = adapter.check(tmp_path)
    assert found.counts == adapter.COUNTS
    items = list(adapter.samples(tmp_path))
    assert len(items) == ITEMS[name]
    assert [item.uid for item in items] == sorted({item.uid for item in items})
    assert all(item.uid.startswith(f"{name}/") and item.uid.count("/") >= 2 for item in items)
    # What does not fit is found: one item fewer than published.
    part = next(iter(adapter.COUNTS))
    fewer = dict(adapter.COUNTS) | {part: adapter.COUNTS[part] + 1}
    assert f"{part} has {adapter.COUNTS[part]} items where" in refusal(name, tmp_path, expected=fewer)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_complete(tmp_path: Path, name: str):
    root, adapter = made(tmp_path, name), adapter_of(name)
    for item in adapter.samples(root):
        assert isinstance(item, Sample)
        assert item.benchmark == name
        assert item.licence == adapter.BENCHMARK.licence
        assert all((item.prompt, item.judge_question, item.cluster))
        assert "<image>" not in item.prompt
        assert item.image_mode == ("real" if adapter.BENCHMARK.images else "none")
        assert (item.image is not None) == adapter.BENCHMARK.images
        assert item.image is None or (root / item.image).read_bytes() == PICTURE
        assert json.loads(json.dumps(item.meta)) == item.meta


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_stated(name: str):
    facts = adapter_of(name).BENCHMARK
    assert facts.name == name
    for said in (facts.title, facts.licence, facts.source, facts.how_to_obtain, facts.prompt_rule):
        assert said.splitlines() == [said]
    assert all((facts.layout, facts.judge_gets))


@pytest.mark.parametrize("name", NAMES)
def test_other_counts_are_refused(tmp_path: Path, name: str):
    """The small folder passes as what it is, and is refused as the published data."""
    root, adapter = made(tmp_path, name), adapter_of(name)
    assert small_check(name, root).counts == small(adapter.COUNTS)
    part, count = next(iter(adapter.COUNTS.items()))
    assert f"{part} has 4 items where the published data has {count}" in refusal(name, root)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_is_named(tmp_path: Path, name: str):
    sentence = refusal(name, tmp_path / "absent")
    assert "there is no such folder" in sentence
    assert adapter_of(name).BENCHMARK.how_to_obtain in sentence
    with pytest.raises(BenchmarkError, match="there is no such folder"):
        list(adapter_of(name).samples(tmp_path / "absent"))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    root = made(tmp_path, name)
    file, _ = RENAMED[name]
    (root / file).unlink()
    assert f"it has no {file}" in refusal(name, root, expected=small(adapter_of(name).COUNTS))
    with pytest.raises(BenchmarkError, match="it has no "):
        list(adapter_of(name).samples(root))


@pytest.mark.parametrize("name", NAMES)
def test_a_renamed_column_is_named(tmp_path: Path, name: str):
    root = made(tmp_path, name)
    file, column = RENAMED[name]
    text = (root / file).read_text()
    if file.endswith(".csv"):
        head, rest = text.split("\n", 1)
        text = head.replace(column, "renamed") + "\n" + rest
    else:
        text = text.replace(f'"{column}"', '"renamed"')
    (root / file).write_text(text)
    sentence = refusal(name, root, expected=small(adapter_of(name).COUNTS))
    assert file in sentence
    assert "renamed" in sentence
    assert f"has no column {column} " in sentence or f"has no field {column}," in sentence
    with pytest.raises(BenchmarkError, match=r"has no (column|field)"):
        list(adapter_of(name).samples(root))


@pytest.mark.parametrize("name", [name for name in NAMES if adapter_of(name).BENCHMARK.images])
def test_missing_pictures_are_counted_and_named(tmp_path: Path, name: str):
    root = made(tmp_path, name)
    gone = sorted({item.image for item in adapter_of(name).samples(root)})
    (root / gone[0]).unlink()
    sentence = refusal(name, root, expected=small(adapter_of(name).COUNTS))
    assert "1 of its " in sentence
    assert f"the first being {gone[0]}" in sentence
    shutil.rmtree((root / gone[0]).parent)
    sentence = refusal(name, root, expected=small(adapter_of(name).COUNTS))
    assert "pictures are missing" in sentence or f"it has no {Path(gone[0]).parent}" in sentence


@pytest.mark.parametrize("name", NAMES)
def test_a_limit_takes_from_every_scenario_in_turn(tmp_path: Path, name: str):
    root, adapter = made(tmp_path, name), adapter_of(name)
    every = list(adapter.samples(root))
    scenarios = {item.scenario for item in every}
    taken = list(adapter.samples(root, limit=len(scenarios)))
    assert {item.scenario for item in taken} == scenarios
    assert [item.uid for item in taken] == sorted(item.uid for item in taken)
    more = Counter(item.scenario for item in adapter.samples(root, limit=2 * len(scenarios)))
    there = Counter(item.scenario for item in every)
    assert more == {scenario: min(2, count) for scenario, count in there.items()}
    assert list(adapter.samples(root, limit=len(every) + 1)) == every
    some = {every[0].uid, every[-1].uid}
    assert {item.uid for item in adapter.samples(root, ids=some)} == some


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_split_lists_those_that_there_are(tmp_path: Path, name: str):
    root, adapter = made(tmp_path, name), adapter_of(name)
    with pytest.raises(BenchmarkError, match=f"'nowhere' was asked for: .*{adapter.BENCHMARK.splits[0]}"):
        list(adapter.samples(root, split="nowhere"))
    for split in adapter.BENCHMARK.splits:
        assert list(adapter.samples(root, split=split))


def test_hashes_change_with_the_data(tmp_path: Path):
    root = made(tmp_path, "advbench")
    before = small_check("advbench", root).sha256["harmful_behaviors.csv"]
    file = root / "harmful_behaviors.csv"
    file.write_text(file.read_text().replace("Sure, 3", "Sure, 4"))
    assert small_check("advbench", root).sha256["harmful_behaviors.csv"] != before


def test_hashes_on_record_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root, adapter = made(tmp_path, "mm_safetybench"), adapter_of("mm_safetybench")
    found = small_check("mm_safetybench", root)
    assert any("has not the hash that is on record for it (13 such files)" in note for note in found.notes)
    recorded = dataclasses.replace(adapter.BENCHMARK, known_sha256=found.sha256)
    monkeypatch.setattr(adapter, "BENCHMARK", recorded)
    notes = small_check("mm_safetybench", root).notes
    assert any("14 of 14 files have the hash that is on record" in note for note in notes)
    assert all(len(value) == 64 for value in adapter.KNOWN.values())
    assert adapter.KNOWN.keys() == adapter.COUNTS.keys()


@pytest.mark.parametrize(
    ("name", "file", "text", "said"),
    [
        ("vlguard", "test.json", "[{", "test.json is no JSON"),
        ("vlguard", "test.json", '{"id": 1}', "test.json holds dict instead of a list of rows"),
        ("vlguard", "test.json", "[3]", "row 1 of test.json is int instead of an object"),
        ("pope", "llava_pope_test.jsonl", "{}\n{", "line 2 of llava_pope_test.jsonl is no JSON"),
        (
            "advbench",
            "harmful_behaviors.csv",
            "goal,target\n,x\n",
            "row 1 of harmful_behaviors.csv has nothing",
        ),
        ("advbench", "harmful_behaviors.csv", "", "among its columns (none)"),
        ("xstest", "xstest_prompts.csv", "id,prompt,type,label,focus,note\n1,a,b,maybe,,\n", "label 'maybe'"),
        (
            "jailbreakbench",
            "data/harmful-behaviors.csv",
            "Index,Goal,Target,Behavior,Category,Source\nx,a,b,c,d,e\n",
            "the index 'x', which is no number",
        ),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, file: str, text: str, said: str):
    root = made(tmp_path, name)
    (root / file).write_text(text)
    assert said in refusal(name, root)


def test_bytes_that_are_no_text_are_named(tmp_path: Path):
    root = made(tmp_path, "xstest")
    (root / "xstest_prompts.csv").write_bytes(b"\xff\xfe\x00")
    assert "xstest_prompts.csv cannot be read" in refusal("xstest", root)


def test_an_item_that_is_there_twice_is_named(tmp_path: Path):
    root = made(tmp_path, "vlguard")
    rows = json.loads((root / "test.json").read_text())
    (root / "test.json").write_text(json.dumps([*rows, rows[0]]))
    with pytest.raises(BenchmarkError, match=r"part/0.png is there more than once"):
        list(adapter_of("vlguard").samples(root))


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path):
    root = made(tmp_path, "xstest")
    file = root / "xstest_prompts.csv"
    before = list(adapter_of("xstest").samples(root))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert list(adapter_of("xstest").samples(root)) == before
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    assert list(adapter_of("xstest").samples(root)) == before


def test_a_quoted_field_may_have_lines_and_commas(tmp_path: Path):
    text = 'goal,target\n"say ba,\nthen di",x\nsay fo\u2028gu,x\n'
    (tmp_path / "harmful_behaviors.csv").write_text(text, encoding="utf-8")
    prompts = [item.prompt for item in adapter_of("advbench").samples(tmp_path)]
    assert prompts == ["say ba,\nthen di", "say fo\u2028gu"]
