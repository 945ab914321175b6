"""Stage 09: which runs it takes, what it counts, means by hand, figures of nothing yet."""

import json

import pandas as pd
import pytest

from katlab import UserError
from katlab.compare_runs import figures
from katlab.compare_runs import stage as compare_runs
from katlab.lab import Claim, compare
from katlab.lab.runs import StageRun


def run(outputs, name, rows=(), stage="05_step_srpo", **given) -> StageRun:
    made = StageRun.create(outputs, name, stage, **given)
    made.verdict([Claim(claim, 1, 1, held, "report") for claim, held in rows])
    return made


def begun(outputs, name="own", runs=(), **given) -> StageRun:
    """Stage 09 as its notebook begins it, with its own parameter `runs`."""
    stage = StageRun.create(outputs, name, "09_compare_runs", **given)
    record = json.loads((stage.dir / "run.json").read_text())
    record["parameters"]["runs"] = list(runs)
    stage.write("run.json", record)
    return stage


def test_without_names_it_takes_the_runs_that_differ_in_their_seed_alone(tmp_path):
    run(tmp_path, "other_seed", seed=1)
    run(tmp_path, "other_profile", profile="tiny")
    run(tmp_path, "other_omega", overrides={"step_srpo.omega": 0.3})
    stage = begun(tmp_path)
    assert compare_runs.chosen(stage) == ["own", "other_seed"]
    named = begun(tmp_path, runs=["other_omega", "other_seed"])
    assert compare_runs.chosen(named) == ["other_omega", "other_seed"]


def test_a_trial_run_is_not_taken_unless_it_is_named(tmp_path):
    def done(name: str, seed: int, stages=("05_step_srpo", "06_evaluation")) -> None:
        for stage in stages:
            run(tmp_path, name, stage=stage, seed=seed).finish()

    done("own", 0)
    done("again", 0)  # the same seed is no further seed
    done("begun", 1, ["05_step_srpo"])
    done("stale", 2)
    record = json.loads((tmp_path / "stale" / "06_evaluation" / "run.json").read_text())
    record["upstream"] = {"05_step_srpo": "of before"}
    (tmp_path / "stale" / "06_evaluation" / "run.json").write_text(json.dumps(record))
    done("seed3", 3)
    done("scratch", 3)  # the older run of a seed stays
    stage = begun(tmp_path)
    assert compare_runs.chosen(stage) == ["own", "seed3"]
    assert compare_runs.run(stage)["seeds"] == 2
    assert compare_runs.chosen(begun(tmp_path, runs=["own", "again"])) == ["own", "again"]


def test_a_named_run_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no run 'nope'"):
        compare_runs.run(begun(tmp_path, runs=["nope"]))


def test_counts_by_hand(tmp_path):
    run(tmp_path, "a", [("x", True), ("y", True), ("z", None)])
    run(tmp_path, "b", [("x", True), ("y", False)])
    run(tmp_path, "c", [("y", True)], seed=7)
    stage = begun(tmp_path, runs=["a", "b", "c"])
    stage.verdict([Claim("A claim about claims.", 1, 1, False, "check")])
    counts = {"runs": 3, "seeds": 2, "claims": 2, "held_everywhere": 1}
    assert compare_runs.run(stage) == counts
    assert json.loads((stage.dir / "run.json").read_text())["headline"] == counts
    run(tmp_path, "c", [("y", False)], seed=7)
    assert compare_runs.run(stage)["held_everywhere"] == 1
    run(tmp_path, "c", [("x", False), ("y", True)], seed=7)
    assert compare_runs.run(stage)["held_everywhere"] == 0
    run(tmp_path, "c", [("y", True)], seed=7)
    shares = compare_runs.held(compare_runs.claims(stage))
    assert shares.to_dict() == {("05_step_srpo", "x"): 1.0, ("05_step_srpo", "y"): 2 / 3}
    found = compare_runs.disputed(compare_runs.claims(stage))
    assert found.index.tolist() == [("05_step_srpo", "y")]
    assert found.columns.tolist() == ["a", "b", "c"]


def test_its_own_claims_about_claims_are_not_counted(tmp_path):
    stage = begun(tmp_path)
    stage.verdict([Claim("Every claim holds.", 1, 0, False, "check")])
    assert compare_runs.run(stage)["claims"] == 0


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
    found = compare_runs.decisions(tmp_path, ["a", "b", "nothing"])
    final = found.query("run == 'b' and system == 'final'")
    assert final[["difficulty", "think_on", "tokens", "accuracy"]].to_numpy().tolist() == [
        [1, 0.0, 10, 1.0],
        [5, 1.0, 60, 0.0],
    ]
    assert figures.decided(found) == (
        "Over 2 runs Step-SRPO saves 20% to 30% of the tokens and thinks on 0% of the easiest and"
        " 100% of the hardest queries."
    )
    drawn = figures.decision_figure(found).axes[-1]
    assert len(drawn.lines) >= 4
    told = [text.get_text() for text in drawn.get_legend().get_texts()]
    assert {"a", "b", "cold start", "final"} <= set(told), "which line is whose"


def test_nothing_evaluated_is_said(tmp_path):
    found = compare_runs.decisions(tmp_path, ["nothing"])
    assert found.empty and "No run has been evaluated" in figures.decided(found)
    figures.decision_figure(found)


def test_a_run_alone_with_nothing_on_record_still_has_its_figures(tmp_path):
    stage = begun(tmp_path)
    names = compare_runs.chosen(stage)
    table = compare.headline(tmp_path, names).unstack("run").reindex(columns=names)
    moved = compare.spread(table)
    assert "One run is nothing to compare" in figures.moved_most(moved)
    figures.moved_figure(moved)
    figures.claim_grid(compare_runs.claims(stage))


def test_what_moved_most_is_said_with_its_range():
    index = pd.MultiIndex.from_tuples([("05_step_srpo", "tokens"), ("06_evaluation", "f1")])
    ratios = pd.DataFrame({"a": [1.0, 1.0], "b": [1.5, 1.1]}, index=index)
    assert figures.moved_most(ratios) == (
        "tokens of 05 moved most: between 1.00 and 1.50 times the first run's value."
    )
    axes = figures.moved_figure(ratios).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["05  tokens", "06  f1"]
    assert len(axes.lines) == 3  # a line per run, and the one at 1
