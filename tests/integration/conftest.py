"""The peer: upstream LLaVA in an environment of its own, one process for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.upstream.peer import Peer


@pytest.fixture(scope="session")
def upstream() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer
