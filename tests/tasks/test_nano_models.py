"""The nano models that are committed: no boundary in the base, teachers that have more to give."""

import json

from conftest import CHECKOUT

from katlab.tasks.nano import build, world

MODELS = CHECKOUT / "data_samples" / "nano"
FIGURES = json.loads((MODELS / "figures.json").read_text())


def test_the_base_works_out_as_much_at_every_difficulty():
    found = build.figures(MODELS / "base", "base", world.queries(1500, seed=7, split="eval"))
    rates = [found[f"rate_{level}"] for level in world.DIFFICULTIES]
    assert 0.35 < min(rates) and max(rates) < 0.65
    assert max(rates) - min(rates) <= 0.10


def test_each_teacher_is_ten_points_above_the_base_in_its_own_mode():
    """Where there is something to transfer: direct answers above level 1, thoughts at 4 and 5."""
    for mode, levels in {"off": (2, 3, 4, 5), "on": (4, 5)}.items():
        for level in levels:
            key = f"{mode}_{level}"
            assert FIGURES[f"teacher_{mode}"][key] >= FIGURES["base"][key] + 0.10, key


def test_a_thought_pays_where_there_is_work():
    on, off = FIGURES["teacher_on"], FIGURES["teacher_off"]
    assert on["on_5"] > off["off_5"] + 0.3 and on["on_1"] < off["off_1"] + 0.1
