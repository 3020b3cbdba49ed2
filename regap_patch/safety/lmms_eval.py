"""The bridge to lmms-eval: our benchmarks as its task files, and its sample logs as answers of a run.

So its two hundred models can be asked what we ask, image modes included, and judged and scored as our own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regap_patch.errors import EvaluationError
from regap_patch.records import Answer, ImageMode, Sample, answer_key, digest, read_lines, to_line
from regap_patch.safety.folder import RunFolder, write_whole
from regap_patch.safety.manifest import Settings, keyed_decoding, keyed_target, make_manifest, settle
from regap_patch.safety.target import Decoding, Question
from regap_patch.safety.tasks import Asked, Task

PREFIX = "regap"
LOG = re.compile(rf"_samples_({PREFIX}_.+)\.jsonl$")
FUNCTIONS = "regap_functions.py"
ASKED = "asked"  # folder of the samples, for the way back
SETTINGS = "settings.json"  # in it
_FUNCTIONS = '''"""What lmms-eval calls for the tasks beside this file."""

from pathlib import Path


def doc_to_visual(doc):
    from PIL import Image

    if not doc["picture"]:
        return []
    return [Image.open(Path(__file__).parent / doc["picture"]).convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def process_results(doc, results):
    return {"answered": float(bool(results[0].strip()))}
'''
_TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: generate_until
doc_to_visual: !function {module}.doc_to_visual
doc_to_text: !function {module}.doc_to_text
doc_to_target: uid
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  top_p: 1.0
  num_beams: 1
  do_sample: false
process_results: !function {module}.process_results
metric_list:
  - metric: answered
    aggregation: mean
    higher_is_better: true
metadata:
  - version: {version}
"""


def write_tasks(
    tasks: Sequence[Task], output_path: Path, *, seed: int = 0, max_new_tokens: int = 512
) -> list[str]:
    """Write a folder for lmms-eval's `--include_path`: one task for each benchmark and image mode.

    The folder must stay where it is: lmms-eval reads data by absolute paths.

    Args:
        tasks: what is asked.
        output_path: the folder.
        seed: of noise and of the choice of irrelevant pictures.
        max_new_tokens: of an answer.

    Returns:
        Names of the tasks, for `--tasks`.

    Raises:
        BenchmarkError: data that is missing, or a picture that does not open.
    """
    root = output_path.resolve()
    names = []
    for task in tasks:
        asked = Asked(task, seed)
        write_whole(root / ASKED / f"{task.name}.jsonl", "".join(map(to_line, asked.samples)))
        for mode in dict.fromkeys(sample.image_mode for sample in asked.samples):
            name = f"{PREFIX}_{task.name}_{mode}"
            rows = [_row(asked, sample, root) for sample in asked.samples if sample.image_mode == mode]
            data = root / f"{name}.jsonl"
            write_whole(data, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            fields = {"name": name, "data": json.dumps(str(data)), "module": Path(FUNCTIONS).stem}
            version = digest(rows)[:12]  # lmms-eval's cache knows a task by it
            write_whole(
                root / f"{name}.yaml",
                _TASK.format(**fields, max_new_tokens=max_new_tokens, version=json.dumps(version)),
            )
            names.append(name)
    write_whole(root / FUNCTIONS, _FUNCTIONS)
    settings = {"max_new_tokens": max_new_tokens, "seed": seed}
    write_whole(root / ASKED / SETTINGS, json.dumps(settings) + "\n")
    return names


def _row(asked: Asked, sample: Sample, root: Path) -> dict[str, Any]:
    _, picture = asked.question(sample.uid, sample.image_mode)
    question = Question(sample.prompt, picture, sample.meta.get("words"))
    name = ""
    if picture is not None:
        name = f"pictures/{sample.image_sha256}"
        path = root / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f".{path.name}")  # a kill must not leave half of it under its name
            unfinished.write_bytes(picture)
            unfinished.replace(path)
    return {"uid": sample.uid, "text": question.text, "picture": name}


def read_logs(written: Path, logs: Path, output_path: Path) -> RunFolder:
    """Turn what `lmms_eval --log_samples` left into a folder that `regap eval judge` takes.

    Args:
        written: folder of `write_tasks`.
        logs: folder in which lmms-eval wrote `*_samples_regap_*.jsonl` of one model.
        output_path: folder of the run.

    Raises:
        EvaluationError: no such logs, several of one task, or items that were not asked.
    """
    found = _logs(logs)
    samples: dict[str, tuple[Sample, ...]] = {}
    texts: dict[tuple[str, str], str] = {}
    for path in sorted((written / ASKED).glob("*.jsonl")):
        every = list(read_lines(path, Sample))
        answered = {
            mode: _texts(found[name], [sample for sample in every if sample.image_mode == mode])
            for mode in dict.fromkeys(sample.image_mode for sample in every)
            if (name := f"{PREFIX}_{path.stem}_{mode}") in found
        }
        samples[path.stem] = tuple(sample for sample in every if sample.image_mode in answered)
        texts |= {(uid, mode): text for mode, said in answered.items() for uid, text in said.items()}
    if not any(samples.values()):
        raise EvaluationError(
            f"{logs} was to be read against {written}, but none of its logs is of a task there: name the "
            f"folder that `regap eval lmms-eval` wrote and the logs of its tasks."
        )
    asked = json.loads((written / ASKED / SETTINGS).read_text(encoding="utf-8"))
    settings = Settings(Decoding(max_new_tokens=asked["max_new_tokens"]), seed=asked["seed"])
    kept = {name: rows for name, rows in samples.items() if rows}
    return _write_run(output_path, settings, kept, texts, found)


def _write_run(
    output_path: Path,
    settings: Settings,
    samples: Mapping[str, Sequence[Sample]],
    texts: Mapping[tuple[str, str], str],
    logs: Mapping[str, Path],
) -> RunFolder:
    folder = RunFolder(output_path)
    target = {
        "kind": "lmms-eval",
        "template": "lmms-eval's",
        "files": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in sorted(logs.items())},
    }
    started = {"model": next(iter(logs.values())).parent.name, "hardware": "not in the logs"}
    manifest = settle(folder.manifest, make_manifest(target, settings, samples, started))
    by_target, by_decoding = keyed_target(manifest), keyed_decoding(manifest)
    for name, rows in samples.items():
        write_whole(folder.samples(name), "".join(map(to_line, rows)))
        for mode in dict.fromkeys(row.image_mode for row in rows):
            answers = [
                _answer(row, texts.get((row.uid, mode)), answer_key(row, by_target, by_decoding))
                for row in rows
                if row.image_mode == mode
            ]
            write_whole(folder.answers(name, mode, 0), "".join(map(to_line, answers)))
    return folder


def _answer(sample: Sample, text: str | None, key: str) -> Answer:
    error = "not in lmms-eval's log" if text is None else None
    mode: ImageMode = sample.image_mode
    # The logs do not say how many tokens an answer has, nor why it ended.
    return Answer(key, sample.uid, mode, "", text or "", 0, "unknown", 0, error=error)


def _logs(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(f"*_samples_{PREFIX}_*.jsonl")):
        match = LOG.search(path.name)
        assert match is not None
        if match[1] in found:
            raise EvaluationError(
                f"{folder} has several logs of {match[1]} ({found[match[1]].name}, {path.name}): move all "
                f"but one run of one model away."
            )
        found[match[1]] = path
    if not found:
        raise EvaluationError(
            f"lmms-eval's logs were to be read from {folder}, but there is no *_samples_{PREFIX}_*.jsonl: "
            f"run it with --log_samples and --output_path."
        )
    return found


def _texts(log: Path, asked: Iterable[Sample]) -> dict[str, str]:
    known = {sample.uid for sample in asked}
    found = {}
    for number, line in enumerate(log.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
        try:
            row = json.loads(line)
            uid, said = str(row["target"]), row["filtered_resps"]
            text = said if isinstance(said, str) else str(said[0])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise EvaluationError(
                f"Line {number} of {log} is no sample of lmms-eval ({type(error).__name__}: {error}): run it "
                f"again."
            ) from error
        if uid not in known:
            raise EvaluationError(
                f"Line {number} of {log} answers {uid!r}, which was not asked: name the folder of tasks that "
                f"this log is of."
            )
        found[uid] = text.strip()
    return found
