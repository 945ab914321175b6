"""At the edges, where the bootstrap knows no doubt, the interval is Wilson's."""

import pandas as pd
import pytest

from katlab import intervals


@pytest.mark.parametrize(("value", "expected"), [(0, (0, 0, 0.2775)), (1, (1, 0.7225, 1))])
def test_ten_prompts_that_all_say_the_same(value, expected):
    # Wilson's 95 % interval of 0 of 10 ends at z^2 / (n + z^2) = 3.8415 / 13.8415 = 0.2775.
    frame = pd.DataFrame({"id": range(10), "right": [value] * 10})
    assert intervals.bootstrap(frame, "right") == pytest.approx(expected, abs=1e-4)


def test_samples_of_one_prompt_are_one_witness():
    frame = pd.DataFrame({"id": [0] * 50 + [1] * 50, "right": 1.0})
    twice = pd.DataFrame({"id": [0, 1], "right": 1.0})
    assert intervals.bootstrap(frame, "right") == intervals.bootstrap(twice, "right")


def test_within_the_edges_it_stays_the_bootstrap():
    frame = pd.DataFrame({"id": range(4), "right": [0, 1, 1, 1]})
    mean, low, high = intervals.bootstrap(frame, "right")
    assert (mean, high) == (0.75, 1.0) and low == 0.25
