"""Runs side by side: means by hand, ratios, and folders that hold nothing yet."""

import json

import pandas as pd
import pytest

from katlab.lab import compare


def evaluated(outputs, run: str, final_tokens: int) -> None:
    """Stage 06 of a run: two difficulties, one answer each and system, and a forced arm."""
    folder = outputs / run / "06_evaluation"
    folder.mkdir(parents=True)
    rows = [
        {"system": system, "arm": arm, "difficulty": difficulty, "mode": mode,
         "tokens": tokens, "correct": correct}
        for system, arm, difficulty, mode, tokens, correct in [
            ("cold start", "auto", 1, "on", 40, True),
            ("cold start", "auto", 5, "on", 60, True),
            ("final", "auto", 1, "off", final_tokens, True),
            ("final", "auto", 5, "on", 60, False),
            ("final", "on", 1, "on", 900, True),
        ]
    ]  # fmt: skip
    (folder / "arms.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_decisions_are_means_of_the_auto_arm(tmp_path):
    evaluated(tmp_path, "a", 20)
    evaluated(tmp_path, "b", 10)
    found = compare.decisions(tmp_path, ["a", "b", "nothing"])
    final = found.query("run == 'b' and system == 'final'")
    assert final[["difficulty", "think_on", "tokens", "accuracy"]].to_numpy().tolist() == [
        [1, 0.0, 10, 1.0],
        [5, 1.0, 60, 0.0],
    ]
    assert compare.decided(found) == (
        "Over 2 runs Step-SRPO saves 20% to 30% of the tokens and thinks on 0% of the easiest and"
        " 100% of the hardest queries."
    )
    assert len(compare.decision_figure(found).axes[0].lines) >= 4


def test_nothing_evaluated_is_said(tmp_path):
    found = compare.decisions(tmp_path, ["nothing"])
    assert found.empty and "No run has been evaluated" in compare.decided(found)
    compare.decision_figure(found)


def test_ratios_leave_out_what_begins_near_zero():
    table = pd.DataFrame(
        {"a": [0.5, 0.01, "x", 2.0], "b": [1.0, 9.0, "y", 2.2]},
        index=pd.MultiIndex.from_tuples([("1", "m"), ("1", "gain"), ("2", "name"), ("2", "n")]),
    )
    found = compare.spread(table)
    assert found.index.tolist() == [("1", "m"), ("2", "n")]
    assert found["b"].tolist() == pytest.approx([2.0, 1.1])
