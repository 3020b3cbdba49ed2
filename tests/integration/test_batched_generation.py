"""What answering in batches is for: answers per second."""

from __future__ import annotations

import pytest
import torch

from scripts.bench.batched_generation import measure, parser


@pytest.mark.full
def test_batches_of_16_give_four_times_the_answers():
    """32 ragged questions with and without pictures; the same answers, or `measure` ends the test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = measure(parser().parse_args(["--repeats", "2"]))
    finally:
        torch.set_num_threads(threads)
    assert result["equal"] == result["questions"] == 32
    assert result["different"] >= 24
    assert result["ratio"] >= 4
