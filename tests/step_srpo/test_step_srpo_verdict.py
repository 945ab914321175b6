"""Every row of stage 05's verdict fails on a training that it speaks about and that went wrong."""

import pandas as pd
import pytest

from katlab.step_srpo import verdict

NAMES = "think (on|off)"
THINKS, SHORTER, NAMED, FORMED = range(4)
SILENT = dict.fromkeys((THINKS, SHORTER, NAMED))


def training(late="gate", named=True, problem=None, correct=True) -> pd.DataFrame:
    """Twelve steps of eight rollouts; from the seventh on the mode follows `late`, before it is on.

    "gate" thinks at difficulty 5 alone; a thought costs 20 tokens.
    """
    rows = []
    for step in range(12):
        for i in range(8):
            level = 1 if i < 4 else 5
            mode = "on" if step < 6 or late == "on" or (late == "gate" and level == 5) else "off"
            says = mode if named or step < 6 else {"on": "off", "off": "on"}[mode]
            broken = problem if step > 5 else None
            rows.append(
                {
                    "step": step,
                    "id": f"{step}-{i}",
                    "difficulty": level,
                    "mode": None if broken == "missing decision" else mode,
                    "problem": broken,
                    "correct": correct and not broken,
                    "tokens": 40 if mode == "on" else 20,
                    "completion": f"think {says}.</judge><think_{mode}>",
                }
            )
    return pd.DataFrame(rows)


def held(**changed) -> list[bool | None]:
    return [row.held for row in verdict.rows(training(**changed), NAMES)]


def test_a_training_that_learns_when_holds_everything():
    assert held() == [True] * 4


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"late": "on"}, {THINKS: False, SHORTER: False}),  # always-on learned nothing
        ({"named": False}, {NAMED: False}),  # the judges were swapped
        ({"problem": "truncated"}, SILENT | {FORMED: False}),
        ({"problem": "missing decision"}, SILENT | {FORMED: False}),
        ({"correct": False}, SILENT),  # short and wrong
    ],
)
def test_each_claim_fails_on_a_training_that_went_wrong(changed, outcome):
    expected = dict.fromkeys(range(4), True) | outcome
    assert held(**changed) == list(expected.values())
