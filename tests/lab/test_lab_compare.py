"""What the folders of runs say side by side: states, claims, figures, and their ratios."""

import pandas as pd
import pytest

from katlab.lab import Claim, compare
from katlab.lab.runs import StageRun


def run(outputs, name: str, seed: int, tokens: int, held: bool, **given: object) -> None:
    stage = StageRun.create(outputs, name, "05_step_srpo", seed=seed, overrides=given)
    stage.verdict([Claim("Tokens fall.", "-19 %", tokens, held, "report")])
    stage.record(tokens=tokens)
    stage.finish()


def test_states_headline_and_claims_of_runs(tmp_path):
    run(tmp_path, "a", 0, -21, True)
    run(tmp_path, "b", 1, -9, False, **{"step_srpo.omega": 0.3})
    states = compare.states(tmp_path, ["b", "a"])
    assert states["overrides"].tolist() == ["step_srpo.omega = 0.3", ""]
    assert states["seed"].tolist() == ["1", "0"] and states["done"].tolist() == [1, 1]
    assert compare.headline(tmp_path, ["b", "a"]).to_dict() == {
        ("05_step_srpo", "tokens", "b"): -9,
        ("05_step_srpo", "tokens", "a"): -21,
    }
    claims = compare.claims(tmp_path, ["b", "a"])
    assert claims["held"].tolist() == [False, True]
    assert claims["measured"].tolist() == ["-9", "-21"]


def test_ratios_leave_out_what_begins_near_zero():
    table = pd.DataFrame(
        {"a": [0.5, 0.01, "x", 2.0], "b": [1.0, 9.0, "y", 2.2]},
        index=pd.MultiIndex.from_tuples([("1", "m"), ("1", "gain"), ("2", "name"), ("2", "n")]),
    )
    found = compare.spread(table)
    assert found.index.tolist() == [("1", "m"), ("2", "n")]
    assert found["b"].tolist() == pytest.approx([2.0, 1.1])
