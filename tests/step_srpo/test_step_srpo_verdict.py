"""Every row of stage 05's verdict fails on a training that it speaks about and that went wrong."""

from types import SimpleNamespace

import pandas as pd
import pytest

from katlab.step_srpo import alarm, tables, verdict

NAMES = "think (on|off)"
THINKS, SHORTER, NAMED, OFF_ARM, ON_ARM, FORMED = range(6)
SILENT = dict.fromkeys((THINKS, SHORTER, NAMED, OFF_ARM, ON_ARM))


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


def forced(damaged: str = "", lost: int = 10) -> pd.DataFrame:
    """200 queries with each mode forced, all right but every `lost`-th final one of a mode."""
    rows = [
        {"student": student, "id": f"{i}", "arm": arm,
         "correct": not (student == "after" and arm == damaged and i % lost == 0)}
        for student in ("before", "after")
        for arm in ("on", "off")
        for i in range(200)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def held(damaged: str = "", **changed) -> list[bool | None]:
    rows = verdict.rows(training(**changed), forced(damaged), NAMES)
    assert all(row.kind != "fact" for row in rows)
    return [row.held for row in rows]


def test_a_training_that_learns_when_holds_everything():
    assert held() == [True] * 6


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({"late": "on"}, {THINKS: False, SHORTER: False}),  # always-on learned nothing
        ({"named": False}, {NAMED: False}),  # the judges were swapped
        ({"damaged": "off"}, {OFF_ARM: False}),
        ({"damaged": "on"}, {ON_ARM: False}),
        ({"problem": "truncated"}, SILENT | {FORMED: False}),
        ({"problem": "missing decision"}, SILENT | {FORMED: False}),
        ({"correct": False}, SILENT),  # short and wrong
    ],
)
def test_each_claim_fails_on_a_training_that_went_wrong(changed, outcome):
    expected = dict.fromkeys(range(6), True) | outcome
    assert held(**changed) == list(expected.values())


def test_the_alarm_rings_once_and_the_caption_tells_all(capsys):
    shares = {1: 1.0, 2: 0.9, 3: 0.6, 4: 0.97}
    bell, state = alarm.JudgeAlarm(), SimpleNamespace(global_step=0, is_world_process_zero=True)
    for state.global_step, share in shares.items():
        bell.on_log(None, state, None, logs={"judge_agreement": share})
    bell.on_log(None, state, None, logs={"train_loss": 0.0})
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "Alarm at step 2: the judge names the mode it takes in only 90% of the rollouts."
    ]
    told = alarm.told([{"step": step, "judge_agreement": share} for step, share in shares.items()])
    assert "least at step 3 (60%); below 95% in 2 of 4 steps" in told
    assert alarm.told([{"step": 1, "reward": 0.5}]).startswith("No rollout took a decision")


def test_accuracy_with_the_mode_forced_by_difficulty():
    samples = forced("off").assign(difficulty=1)
    table = tables.forced_accuracy(samples)
    assert table.loc["forced off, cold start", "all"] == 1
    assert table.loc["forced off, final", "all"] == pytest.approx(0.9)
    assert table.loc["forced on, final", 1] == 1
