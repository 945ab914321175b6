"""Rows in an order that wastes no padding and keeps every step mixed."""

import pytest

from katlab import batching


def test_batching_sorts_inside_a_step_and_visits_every_row_before_repeating_one():
    rows = [{"input_ids": [0] * n} for n in (5, 1, 4, 2, 3, 6, 8, 7)]
    ordered = batching.by_length(rows, steps=4, batch_size=4, seed=0)
    lengths = [len(row["input_ids"]) for row in ordered]
    for start in range(0, 16, 4):
        assert lengths[start : start + 4] == sorted(lengths[start : start + 4])
    assert sorted(lengths[:8]) == sorted(lengths[8:]) == list(range(1, 9))


@pytest.mark.parametrize("batch_size", [3, 5])
def test_batching_gives_exactly_what_the_steps_need(batch_size):
    rows = [{"input_ids": [0] * n} for n in range(1, 8)]
    assert len(batching.by_length(rows, 6, batch_size, 1)) == 6 * batch_size
