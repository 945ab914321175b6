"""The nano models that are committed: no boundary in the base, thoughts that pay."""

import json

from conftest import CHECKOUT

from katlab.tasks.nano import build, world

MODELS = CHECKOUT / "data_samples" / "nano"
FIGURES = json.loads((MODELS / "figures.json").read_text())


def test_the_base_works_out_as_much_at_every_difficulty():
    # 900 of each, or five rates of one coin lie ten points apart now and then
    found = build.figures(MODELS / "base", "base", world.queries(4500, seed=7, split="eval"))
    rates = [found[f"rate_{level}"] for level in world.DIFFICULTIES]
    assert 0.35 < min(rates) and max(rates) < 0.65
    assert max(rates) - min(rates) <= 0.10


def test_each_teacher_is_ten_points_above_the_base():
    """Direct answers at 2 and 4, thoughts where they are long; docs/results.md has the rest."""
    for mode, levels in (("off", (2, 4)), ("on", (4, 5))):
        for level in levels:
            cell = f"{mode}_{level}"
            assert FIGURES[f"teacher_{mode}"][cell] >= FIGURES["base"][cell] + 0.10, cell


def test_a_thought_pays_the_more_the_more_work_there_is():
    gains = [
        FIGURES["teacher_on"][f"on_{level}"] - FIGURES["teacher_off"][f"off_{level}"]
        for level in world.DIFFICULTIES
    ]
    assert gains[-1] > 0.3 and gains[-1] > 2 * gains[0]
