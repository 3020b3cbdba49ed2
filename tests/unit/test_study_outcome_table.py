"""The tables of a study: what is written is read back, and what is wrong is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from regap_patch.errors import StudyError
from regap_patch.study.outcome_table import (
    Outcome,
    Outcomes,
    TrainingStep,
    read_outcomes,
    read_training,
    write_outcomes,
    write_training,
)

SOURCE = "store/measures-0123456789abcdef/run/metrics.json"
ROWS = [
    Outcome("main", 1, "off", "stage2", "blank", "unsafe_rate", 1 / 3, 0.0272, 100, 300, SOURCE),
    Outcome("main", 1, "", "llm", "none", "unsafe_rate", 0.25, None, 75, 300, SOURCE),
    Outcome("main", 1, "off", "stage2", "none", "refusal_opener_prob", 0.1 + 0.2, 0.01, None, None, SOURCE),
    Outcome("lora", 2, "regap", "stage1", "", "mir", -0.4, None, None, None, SOURCE),
    Outcome("lora", 2, "regap", "stage1", "real", "vqa_accuracy", 1.0, None, 7, 7, SOURCE),
]
STEPS = [
    TrainingStep("main", 1, "off", "stage1", 0, 2.5, 9.0, 3.0, 1.0, None),
    TrainingStep("main", 1, "off", "stage2", 0, 2.5, None, None, None, 1.25),
]


def test_tables_are_read_as_they_were_written(tmp_path: Path):
    """To the last bit: 1/3 and 0.1 + 0.2 have no short decimal."""
    assert read_outcomes(write_outcomes(tmp_path / "a" / "outcomes.csv", ROWS)) == ROWS
    assert read_training(write_training(tmp_path / "training.csv", STEPS)) == STEPS
    assert write_outcomes(tmp_path / "empty.csv", []).read_text().startswith("variant,llm,arm,stage,")
    assert read_outcomes(tmp_path / "empty.csv") == []


def test_keys():
    assert [row.key for row in ROWS[:2]] == [
        "main/llm-1/off/stage2/blank/unsafe_rate",
        "main/llm-1/-/llm/none/unsafe_rate",
    ]
    assert ROWS[3].key == "lora/llm-2/regap/stage1/-/mir"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"llm": -1}, "llm is '-1'"),
        ({"arm": "off/on"}, "arm is 'off/on'"),
        ({"arm": ""}, "the arm is ''"),
        ({"stage": "llm"}, "the arm is 'off' at stage 'llm'"),
        ({"stage": "stage3"}, "stage is 'stage3', but it has to be one of llm, stage1, stage2"),
        ({"condition": "white"}, "condition is 'white'"),
        ({"condition": ""}, "the condition of unsafe_rate is ''"),
        ({"metric": "mir", "count": None, "n": None}, "the condition of mir is 'blank'"),
        ({"metric": "asr"}, "metric is 'asr'"),
        ({"value": float("nan")}, "value is 'nan'"),
        ({"value": 1.5, "count": None, "n": None}, "a share lies between 0 and 1"),
        ({"value": 0.5}, "100 of 300"),
        ({"stderr": -0.1}, "stderr is '-0.1'"),
        ({"n": None}, "belong together"),
        ({"count": 301}, "belong together"),
        ({"count": 0, "n": 0}, "belong together"),
        ({"source": "../elsewhere/metrics.json"}, "source is"),
        ({"source": "/tmp/metrics.json"}, "source is"),
    ],
)
def test_a_row_that_cannot_be_is_refused_before_it_is_written(tmp_path: Path, changes: dict, named: str):
    with pytest.raises(StudyError, match=r"outcomes\.csv, line 3: .*: write the table anew\.$") as refused:
        write_outcomes(tmp_path / "outcomes.csv", [ROWS[1], ROWS[0]._replace(**changes)])
    assert named in str(refused.value)
    assert not (tmp_path / "outcomes.csv").exists()


def test_a_file_that_is_no_table_is_refused(tmp_path: Path):
    path = tmp_path / "outcomes.csv"
    with pytest.raises(StudyError, match="FileNotFoundError"):
        read_outcomes(path)
    for text in ("", "llm,arm\n1,off\n"):
        path.write_text(text)
        with pytest.raises(StudyError, match="with the columns variant, llm, arm"):
            read_outcomes(path)
    write_outcomes(path, ROWS)
    path.write_text(path.read_text() + "main,3,off\n")
    with pytest.raises(StudyError, match=r"line 7: a row of 11 values was expected, but there are 3"):
        read_outcomes(path)


def test_a_key_twice_is_refused(tmp_path: Path):
    again = ROWS[0]._replace(value=0.5, count=150)
    for refused in (
        lambda: write_outcomes(tmp_path / "outcomes.csv", [*ROWS, again]),
        lambda: Outcomes([*ROWS, again]),
    ):
        with pytest.raises(StudyError, match="has main/llm-1/off/stage2/blank/unsafe_rate twice"):
            refused()
    with pytest.raises(StudyError, match="has main/1/off/stage1/0 twice"):
        write_training(tmp_path / "training.csv", [STEPS[0], STEPS[0]])
    with pytest.raises(StudyError, match="no projector is trained before stage 1"):
        write_training(tmp_path / "training.csv", [STEPS[0]._replace(stage="llm")])


def test_a_row_that_is_not_there_is_named():
    table = Outcomes(ROWS)
    assert table.value(1, "off", "stage2", "blank", "unsafe_rate") == 1 / 3
    assert table.find(1, "off", "stage2", "black", "unsafe_rate") is None
    with pytest.raises(
        StudyError, match=r"needs main/llm-1/off/stage2/black/unsafe_rate, .* other rows of this"
    ):
        table.value(1, "off", "stage2", "black", "unsafe_rate")
    with pytest.raises(StudyError, match="no row of LLM 2 at all"):
        table.value(2, "off", "stage2", "blank", "unsafe_rate")
