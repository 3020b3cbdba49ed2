"""Which rows and positions change, pass after pass, with and without a cache."""

from __future__ import annotations

import pytest
import torch

from regap_patch.defenses.positions import POSITIONS, Placed
from regap_patch.errors import DefenseError

PROMPT, STEPS, WIDTH = 5, 3, 4


def states(rows: int = 3, length: int = PROMPT + STEPS) -> torch.Tensor:
    return torch.randn(rows, length, WIDTH, generator=torch.Generator().manual_seed(1))


def changed_positions(positions: str) -> set[int]:
    last = {"last_prefill": {PROMPT - 1}, "all_prefill": set(range(PROMPT))}
    return last.get(positions, set(range(PROMPT + STEPS)))


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("cache", [True, False])
def test_positions_of_each_pass(positions, cache):
    whole = states()
    placed = Placed(lambda rows: rows + 1, [True, False, True], positions)
    for step in range(STEPS + 1):
        start, stop = (0 if step == 0 or not cache else PROMPT + step - 1), PROMPT + step
        given = whole[:, start:stop]
        found = placed(given)
        for place in range(start, stop):
            for row in range(3):
                changes = row != 1 and place in changed_positions(positions)
                expected = given[row, place - start] + 1 if changes else given[row, place - start]
                assert torch.equal(found[row, place - start], expected), (step, place, row)
        assert found.dtype == given.dtype


def test_the_tensor_of_the_model_is_never_written_to():
    given = states()
    before = given.clone()
    assert Placed(lambda rows: rows * 0, [True] * 3, "all_steps")(given) is not given
    assert torch.equal(given, before)
    assert Placed(lambda rows: rows * 0, [False] * 3, "all_steps")(given) is given


def test_a_prompt_of_one_token_is_told_from_the_next_token():
    placed = Placed(lambda rows: rows + 1, [True], "last_prefill")
    first, second = states(1, 1), states(1, 1)
    assert torch.equal(placed(first), first + 1)
    assert placed(second) is second


def test_a_batch_that_runs_twice_side_by_side():
    given = states(6)
    vectors = torch.arange(2.0)[:, None, None] + 1
    found = Placed(lambda rows: rows + vectors, [True, False, True], "all_prefill")(given)
    added = (found - given)[:, 0, 0]
    torch.testing.assert_close(added, torch.tensor([1.0, 0, 2, 1, 0, 2]))


def test_rows_that_are_no_such_batch():
    for rows in (4, 2):
        with pytest.raises(DefenseError, match=f"prepared 3 rows, but the decoder runs {rows}: ask for one"):
            Placed(lambda rows: rows, [True] * 3, "all_steps")(states(rows))
