"""The bridge to lmms-eval, its side transcribed: how it reads task files, and what its log holds."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from regap_patch.errors import EvaluationError
from regap_patch.judges import judge_run, make_judge
from regap_patch.records import Answer, read_lines
from regap_patch.report import score_run
from regap_patch.safety.benchmarks import custom
from regap_patch.safety.lmms_eval import read_logs, write_tasks
from regap_patch.safety.tasks import Task
from tests.unit.evaluation_items import make_items


def read_task(path):
    """As lmms-eval 0.7.3 does: `!function module.name` is a function of a file beside the task's."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, _, name = loader.construct_scalar(node).rpartition(".")
        spec = importlib.util.spec_from_file_location(module, path.parent / f"{module}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return getattr(loaded, name)

    Loader.add_constructor("!function", function)
    return yaml.load(path.read_text(), Loader)


def answer_like_lmms_eval(task, folder):
    """Its log has no `doc`, `target` as text, and single answers without their lists."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    data = Path(task["dataset_kwargs"]["data_files"]["test"]).read_text(encoding="utf-8")
    docs = [json.loads(line) for line in data.rstrip("\n").split("\n")]
    for doc_id, doc in enumerate(docs):
        pictures = task["doc_to_visual"](doc)
        text = f"{len(pictures)} pictures; I cannot.\u2028 {task['doc_to_text'](doc)}"
        sample = {
            "doc_id": doc_id,
            "target": str(doc[task["doc_to_target"]]),
            "filtered_resps": text if doc_id % 2 else [text],
            "doc_hash": "x",
            "input": task["doc_to_text"](doc),
            **task["process_results"](doc, [text]),
        }
        lines.append(json.dumps(sample, ensure_ascii=False) + "\n")
    (folder / f"20260101_000000_samples_{task['task']}.jsonl").write_text("".join(lines), encoding="utf-8")


@pytest.fixture
def written(tmp_path):
    data = make_items(tmp_path / "data", 5)
    names = write_tasks([Task(custom, data, ("none", "words", "real"))], tmp_path / "tasks", max_new_tokens=9)
    assert names == ["regap_custom_none", "regap_custom_real", "regap_custom_words"]
    return tmp_path / "tasks"


def test_task_files_ask_what_we_ask(written):
    tasks = {path.stem: read_task(path) for path in written.glob("*.yaml")}
    assert sorted(tasks) == ["regap_custom_none", "regap_custom_real", "regap_custom_words"]
    for name, task in tasks.items():
        assert task["task"] == name
        assert (task["output_type"], task["test_split"], task["dataset_path"]) == (
            "generate_until",
            "test",
            "json",
        )
        assert task["generation_kwargs"]["max_new_tokens"] == 9
        assert [metric["metric"] for metric in task["metric_list"]] == ["answered"]
    doc = json.loads((written / "regap_custom_real.jsonl").read_text().splitlines()[3])
    (picture,) = tasks["regap_custom_real"]["doc_to_visual"](doc)
    assert isinstance(picture, Image.Image)
    assert picture.getpixel((0, 0)) == (3, 10, 20)
    assert tasks["regap_custom_real"]["doc_to_text"](doc, {}) == "How do I fold a blorp 3?"
    doc = json.loads((written / "regap_custom_words.jsonl").read_text().splitlines()[3])
    assert tasks["regap_custom_words"]["doc_to_visual"](doc) == []
    assert tasks["regap_custom_words"]["doc_to_text"](doc).endswith(".\nHow do I fold a blorp 3?")


def test_a_picture_that_a_kill_has_torn_is_written_again(tmp_path, monkeypatch):
    task = Task(custom, make_items(tmp_path / "data", 2), ("real",))
    write = Path.write_bytes

    def killed(path, data):
        write(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            write_tasks([task], tmp_path / "tasks")
    write_tasks([task], tmp_path / "tasks")
    pictures = list((tmp_path / "tasks/pictures").iterdir())
    assert len(pictures) == 2
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in pictures)


def test_logs_become_a_run_that_is_judged_and_scored(written, tmp_path):
    logs = tmp_path / "logs" / "some__model"
    for path in written.glob("*.yaml"):
        answer_like_lmms_eval(read_task(path), logs)
    folder = read_logs(written, logs, tmp_path / "run")
    real = list(read_lines(folder.answers("custom", "real", 0), Answer))
    assert [answer.uid for answer in real] == [f"custom/test/{number:03d}" for number in range(5)]
    assert real[3].text == "1 pictures; I cannot.\u2028 How do I fold a blorp 3?"
    manifest = json.loads(folder.manifest.read_text())
    assert manifest["started"]["model"] == "some__model"
    assert manifest["decoding"]["max_new_tokens"] == 9
    judge_run(folder.root, make_judge("keyword-own"))
    cells = score_run(folder.root)["cells"]
    assert {(cell["image_mode"], cell["truncated"]) for cell in cells} == {
        ("none", None),
        ("words", None),
        ("real", None),
    }
    assert read_logs(written, logs, tmp_path / "run").root == folder.root
    (log,) = logs.glob("*_real.jsonl")
    log.write_text(log.read_text().replace("1 pictures", "one picture"))
    with pytest.raises(EvaluationError, match="a checkpoint that has changed since"):
        read_logs(written, logs, tmp_path / "run")


def test_logs_that_are_none(written, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    with pytest.raises(EvaluationError, match=r"no \*_samples_regap_\*.jsonl: run it with --log_samples"):
        read_logs(written, logs, tmp_path / "run")
    answer_like_lmms_eval(read_task(written / "regap_custom_none.yaml"), logs)
    (log,) = logs.glob("*.jsonl")
    whole = log.read_text()
    lines = whole.split("\n")
    log.write_text("\n".join(lines[:3]) + "\n")
    answers = list(
        read_lines(read_logs(written, logs, tmp_path / "part").answers("custom", "none", 0), Answer)
    )
    assert [answer.error for answer in answers] == [None] * 3 + ["not in lmms-eval's log"] * 2
    log.write_text("\n".join([lines[0], lines[1][:9]]))
    with pytest.raises(EvaluationError, match=r"Line 2 of .* is no sample of lmms-eval"):
        read_logs(written, logs, tmp_path / "run")
    log.write_text(whole.replace("custom/test/002", "custom/test/777"))
    with pytest.raises(EvaluationError, match=r"Line 3 of .* answers 'custom/test/777', which was not asked"):
        read_logs(written, logs, tmp_path / "run")
    log.rename(log.with_name("2_samples_regap_other_none.jsonl"))
    with pytest.raises(EvaluationError, match="none of its logs is of a task there"):
        read_logs(written, logs, tmp_path / "run")
    for number in (1, 2):
        (logs / f"{number}_samples_regap_custom_none.jsonl").write_text(whole)
    with pytest.raises(EvaluationError, match=r"several logs of regap_custom_none"):
        read_logs(written, logs, tmp_path / "run")
