"""What is drawn comes out as rows and as words."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import seaborn as sns

from katlab.lab import drawn


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_lines_and_levels_with_the_names_of_the_legend():
    figure, axis = plt.subplots()
    axis.plot([1, 2], [0.5, 0.25], label="loss")
    axis.axhline(0.3, label="target")
    axis.set(title="T", xlabel="step", ylabel="nats")
    rows = drawn.rows(figure)
    assert rows[0] == {"panel": "T", "series": "loss", "kind": "line", "x": 1.0, "y": 0.5}
    assert rows[2] == {"panel": "T", "series": "target", "kind": "level", "y": 0.3}
    assert drawn.alt(figure) == "T. Lines of nats by step for loss, target, from 0.25 to 0.5."


def test_error_bars_are_points_with_both_ends():
    figure, axis = plt.subplots()
    axis.errorbar([10], [0.5], yerr=[[0.1], [0.2]], xerr=[[1], [2]], label="auto")
    (row,) = drawn.rows(figure)
    assert row["series"] == "auto" and row["kind"] == "point"
    ends = [row[key] for key in ("low", "high", "x_low", "x_high")]
    assert ends == pytest.approx([0.4, 0.7, 9, 12])


def test_bars_stand_under_the_names_of_their_ticks():
    figure, axis = plt.subplots()
    axis.bar([0, 1], [3, 4], color="#2563eb", label="on")
    axis.set_xticks([0, 1], ["code", "math"])
    axis.set_title("Tokens")
    assert [(r["series"], r["x"], r["y"]) for r in drawn.rows(figure)] == [
        ("on", "code", 3),
        ("on", "math", 4),
    ]


def test_a_map_has_one_row_per_cell_and_no_panel_for_its_colours():
    figure, axis = plt.subplots()
    sns.heatmap(np.array([[0.0, 1.0]]), ax=axis, xticklabels=["a", "b"], yticklabels=["c"])
    figure.canvas.draw()
    rows = drawn.rows(figure)
    assert [(r["x"], r["y"], r["value"]) for r in rows] == [("a", "c", 0.0), ("b", "c", 1.0)]
    assert "a map of cells" in drawn.alt(figure).lower() and "from 0 to 1" in drawn.alt(figure)


def test_a_band_is_its_lower_and_upper_edge():
    figure, axis = plt.subplots()
    axis.fill_between([0, 1], [0.1, 0.2], [0.3, 0.4], label="band")
    assert {(r["x"], r["low"], r["high"]) for r in drawn.rows(figure)} == {
        (0.0, 0.1, 0.3),
        (1.0, 0.2, 0.4),
    }
