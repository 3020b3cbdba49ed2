"""Fixtures that every tier shares, and the marker that each folder carries."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


class TinyAssets(NamedTuple):
    """A tiny LLaMA, a tiny CLIP tower (random weights) and a small picture world, all on disk."""

    root: Path
    llama: Path
    clip: Path
    world: object


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        item.add_marker(getattr(pytest.mark, folder))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """`REQUIRE_ALL=1`: what this machine lacks is a failure, not a skip."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_ALL=1 allows no skip: {report.longrepr}"
    return report


def _make_assets(root: Path) -> None:
    from regap_patch.study import tiny, world

    made = world.make_world(root / "world", num_pretrain=64, num_finetune=64, num_questions=32, seed=0)
    tiny.train_tokenizer(made.corpus, root / "tokenizer")
    tiny.make_tiny_llama(root / "llama", root / "tokenizer")
    tiny.make_tiny_clip(root / "clip")


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own: what another test has measured or answered is not there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> TinyAssets:
    """Made once for each state of the code that makes it, and kept in the temporary directory."""
    from regap_patch.study import world as world_module

    makers = ("language", "scenes", "tiny", "tokens", "world")
    sources = b"".join(Path(world_module.__file__).with_name(f"{name}.py").read_bytes() for name in makers)
    digest = hashlib.sha256(sources + Path(__file__).read_bytes()).hexdigest()[:16]
    root = Path(tempfile.gettempdir()) / f"regap-tiny-{os.getuid()}-{digest}"
    if not root.is_dir():
        building = Path(tempfile.mkdtemp(prefix="regap-tiny-"))
        _make_assets(building)
        try:
            building.rename(root)
        except OSError:  # another run of the tests was faster
            shutil.rmtree(building)
    return TinyAssets(root, root / "llama", root / "clip", world_module.World.open(root / "world"))
