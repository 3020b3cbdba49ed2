"""Vectors and directions of defences against computations that share nothing with ours."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch

from regap_patch.defenses import Notes, Turn
from regap_patch.defenses.directions import (
    agreement,
    mean_vector,
    moved_along,
    principal_vector,
    span,
)
from regap_patch.defenses.vlm_guard import VlmGuard
from regap_patch.errors import RowsError

N, K, D = 12, 3, 16


def drawn(seed: int = 0, *shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (N, K, D)), generator=torch.Generator().manual_seed(seed))


def planted(noise: float, *, strengths: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences along one unit vector a layer, of these strengths, with noise of this deviation."""
    truth = torch.nn.functional.normalize(drawn(7, K, D), dim=-1)
    strengths = torch.linspace(1.0, 3.0, N) if strengths is None else strengths
    return strengths[:, None, None] * truth + noise * drawn(8), truth


def test_the_mean_is_the_sum_over_the_count():
    differences = drawn()
    expected = [[sum(differences[n, k, d].item() for n in range(N)) / N for d in range(D)] for k in range(K)]
    torch.testing.assert_close(mean_vector(differences), torch.tensor(expected), rtol=1e-6, atol=1e-7)
    half = mean_vector(differences.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_a_planted_direction_is_recovered_sign_and_length():
    for sign in (1, -1):
        differences, truth = planted(0.01)
        found = principal_vector(sign * differences)
        cosine = torch.nn.functional.cosine_similarity(found, sign * truth)
        assert cosine.min() > 0.9999
        torch.testing.assert_close(found.norm(dim=-1), differences.mean(0).norm(dim=-1), rtol=1e-6, atol=0)
    same_for_all, truth = planted(0.01, strengths=torch.full((N,), 2.0))
    assert torch.nn.functional.cosine_similarity(principal_vector(same_for_all), truth).min() > 0.9999


def test_anchors_that_point_away_pull_at_the_mean_and_not_at_the_component():
    strengths = torch.tensor([5.0, -3.0] * (N // 2))
    differences, truth = planted(0.3, strengths=strengths)
    component, mean = principal_vector(differences), mean_vector(differences)
    torch.testing.assert_close(component.norm(dim=-1), mean.norm(dim=-1))
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(component, truth).min() > 0.99
    assert cosine(mean, truth).max() < cosine(component, truth).min()


def test_components_are_those_of_an_eigendecomposition():
    """Of the second moments, by numpy: another routine on another matrix."""
    differences = drawn(3) + 0.5 * drawn(4, 1, K, D)
    directions = span(differences, 4)
    shares, cosines = agreement(differences)
    for layer in range(K):
        rows = differences[:, layer].double().numpy()
        values, vectors = numpy.linalg.eigh(rows.T @ rows)
        expected = vectors[:, ::-1][:, :4].T
        expected *= numpy.where(expected @ rows.mean(0) < 0, -1, 1)[:, None]
        numpy.testing.assert_allclose(directions[layer].numpy(), expected, atol=1e-6)
        assert shares[layer].item() == pytest.approx(values[-1] / values.sum(), rel=1e-6)
        mean = rows.mean(0)
        length = numpy.linalg.norm(mean)
        assert cosines[layer].item() == pytest.approx(expected[0] @ mean / length, rel=1e-5)
        numpy.testing.assert_allclose(
            principal_vector(differences)[layer].numpy(), expected[0] * length, atol=1e-6
        )
    products = directions @ directions.transpose(1, 2)
    torch.testing.assert_close(products, torch.eye(4).expand(K, 4, 4), rtol=0, atol=1e-6)


def test_an_anchor_of_itself_is_its_own_direction():
    differences = drawn(5, 1, K, D)
    torch.testing.assert_close(mean_vector(differences), differences[0])
    torch.testing.assert_close(principal_vector(differences), differences[0])


@pytest.mark.parametrize("replace", [False, True])
def test_states_move_by_their_part_in_the_span_if_the_gate_is_open(replace):
    directions = span(drawn(1), 3)[0]
    states = drawn(2, 2, 5, D)
    moved = moved_along(states, directions, 0.7, replace=replace)
    opened = 0
    for row in range(2):
        for place in range(5):
            state = states[row, place].double().numpy()
            coordinates = [float(direction.double().numpy() @ state) for direction in directions]
            inside = sum(c * v.double().numpy() for c, v in zip(coordinates, directions, strict=True))
            gate = 1.0 if coordinates[0] > 0 else 0.0
            opened += gate
            expected = state + 0.7 * gate * inside - (inside if replace else 0)
            numpy.testing.assert_allclose(moved[row, place].numpy(), expected, atol=1e-6)
            if not gate and not replace:
                assert torch.equal(moved[row, place], states[row, place])
    assert 0 < opened < 10


def test_half_precision_keeps_its_dtype_and_what_does_not_move():
    directions, states = span(drawn(1), 2)[0], drawn(2, 40, D).bfloat16()
    moved = moved_along(states, directions, 1.0)
    still = (states.float() @ directions[0]) <= 0
    assert moved.dtype == torch.bfloat16
    assert 0 < still.sum() < 40
    assert torch.equal(moved[still], states[still])
    assert not torch.equal(moved[~still], states[~still])


def test_gates_of_several_generations_about_one_question_add_up(tmp_path):
    """As under ECSO, which asks up to four times."""
    layer = torch.nn.Identity()
    guard = VlmGuard(tmp_path, rank=1, positions="last_prefill")
    guard._decoder = SimpleNamespace(layers=torch.nn.ModuleList([layer]))
    guard._stored = {0: torch.eye(D)[:1]}
    state, notes = drawn(2, 2, 3, D), Notes(2)
    state[:, -1, 0] = torch.tensor([1.0, -1.0])
    turns = [Turn(number, "q", "q") for number in (0, 1)]
    for _ in range(2):
        guard.around(turns, lambda turns: [layer(state)[:0]] * 2, notes)
    assert notes.rows == [{"fired": True, "gates": 2}, {"fired": False}]


def test_what_no_direction_can_be_taken_of():
    with pytest.raises(RowsError, match="0 differences: give at least one anchor"):
        mean_vector(torch.zeros(0, K, D))
    broken = drawn()
    broken[2, 1, 3] = float("nan")
    with pytest.raises(RowsError, match="not all finite"):
        principal_vector(broken)
    with pytest.raises(RowsError, match="layer 1 cancel out"):
        principal_vector(torch.zeros(N, K, D))
    with pytest.raises(RowsError, match="20 directions were asked for, but 12 differences of width 16"):
        span(drawn(), 20)
