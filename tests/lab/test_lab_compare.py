"""Runs side by side: settings, claims and figures of each, ratios, and rows by hand."""

import pandas as pd
import pytest

from katlab import UserError
from katlab.lab import Claim, compare
from katlab.lab.runs import StageRun


def run(outputs, name: str, seed: int, tokens: int, held: bool, **given: object) -> None:
    stage = StageRun.create(outputs, name, "05_step_srpo", seed=seed, overrides=given)
    stage.verdict([Claim("Tokens fall.", "-19 %", tokens, held, "report")])
    stage.record(tokens=tokens)
    stage.finish()


def test_settings_claims_and_figures_stand_side_by_side(tmp_path):
    run(tmp_path, "a", 0, -21, True)
    run(tmp_path, "b", 1, -9, False, **{"step_srpo.omega": 0.3})
    lines = compare.side_by_side(tmp_path, ["b", "a"]).splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert "b nano 1 step_srpo.omega = 0.3" in rows and "a nano 0" in rows
    assert "| stage | claim | reported | b | a |" in rows
    assert "| 05 | Tokens fall. | -19 % | -9 ✗ | -21 ✓ |" in rows
    assert rows[-1] == "05_step_srpo tokens -9 -21"


def test_claims_of_runs_that_lack_a_stage(tmp_path):
    run(tmp_path, "a", 0, -21, True)
    other = StageRun.create(tmp_path, "b", "01_layer_saturation")
    other.verdict(
        [Claim(name, 1, 1, held, "report") for name, held in (("Second.", None), ("First.", True))]
    )
    assert compare.claim_table(compare.claims(tmp_path, ["a", "b"])).splitlines()[2:] == [
        "| 01 | Second. | 1 | – | 1 |",
        "| 01 | First. | 1 | – | 1 ✓ |",
        "| 05 | Tokens fall. | -19 % | -21 ✓ | – |",
    ]


def test_runs_without_figures_are_named(tmp_path):
    StageRun.create(tmp_path, "a", "05_step_srpo")
    with pytest.raises(UserError, match="None of a has headline figures"):
        compare.side_by_side(tmp_path, ["a"])


def test_ratios_leave_out_what_begins_near_zero():
    table = pd.DataFrame(
        {"a": [0.5, 0.01, "x", 2.0], "b": [1.0, 9.0, "y", 2.2]},
        index=pd.MultiIndex.from_tuples([("1", "m"), ("1", "gain"), ("2", "name"), ("2", "n")]),
    )
    found = compare.spread(table)
    assert found.index.tolist() == [("1", "m"), ("2", "n")]
    assert found["b"].tolist() == pytest.approx([2.0, 1.1])
