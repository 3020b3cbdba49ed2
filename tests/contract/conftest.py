"""A tiny LLaVA in memory, the folders that both training stages leave of it, and the table of conformance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_llava import make_model

CONFORMANCE = Path(__file__).with_name("test_host_conformance.py")
TABLE = json.loads(Path(__file__).with_name("conformance.json").read_text())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the conformance tests that do not apply to a host, by the table."""

    def applies(item: pytest.Item) -> bool:
        if item.path != CONFORMANCE:
            return True
        return item.originalname not in TABLE["rows"][item.callspec.params["row"]]["not_applicable"]

    config.hook.pytest_deselected(items=[item for item in items if not applies(item)])
    items[:] = [item for item in items if applies(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """A conformance test that the table says applies may be skipped only for a package that it needs."""
    report = yield
    if report.skipped and item.path == CONFORMANCE and item.originalname not in TABLE["needs"]:
        report.outcome = "failed"
        report.longrepr = f"conformance.json says that this applies: {report.longrepr}"
    return report


@pytest.fixture(scope="module")
def llava_model(tiny):
    return make_model(tiny).eval()


@pytest.fixture(scope="module")
def llava_folder(llava_model, tiny, tmp_path_factory):
    """As stage 2 leaves it."""
    path = tmp_path_factory.mktemp("llava") / "full"
    llava_model.save_pretrained(path)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        (path / name).write_bytes((tiny.llama / name).read_bytes())
    return path


@pytest.fixture(scope="module")
def stage_one_folder(llava_model, tmp_path_factory):
    """As stage 1 leaves it."""
    path = tmp_path_factory.mktemp("llava") / "projector"
    llava_model.config.save_pretrained(path)
    tensors = {
        f"model.mm_projector.{key}": value
        for key, value in llava_model.model.mm_projector.state_dict().items()
    }
    torch.save(tensors, path / "mm_projector.bin")
    return path
