"""A finished run, opened to read: what it gives, what it refuses, and that it stays as it was."""

import os
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from conftest import CHECKOUT

from katlab import UserError, lab
from katlab.lab import Claim, StageRun, stages

ROWS = [{"step": 0, "mode": "on", "correct": None}, {"step": 1, "mode": None, "correct": True}]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outputs of a checkout whose run "r" has stages 04 and 05 done."""
    for name in ("notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    monkeypatch.setenv("KATLAB_ROOT", str(tmp_path))
    stage = finished("04_cold_start")
    stage = finished("05_step_srpo", **{"step_srpo.omega": 0.9})
    lab.write_jsonl(stage.dir / "rollouts.jsonl", ROWS)
    stage.journal("replies.jsonl").put("key", "a reply")
    (stage.dir / "plan.csv").write_text("layer,loss\n3,0.5\n")
    return tmp_path / "outputs"


def finished(name: str, **overrides: object) -> StageRun:
    stage = StageRun.create(stages.outputs(), "r", name, profile="tiny", overrides=overrides)
    figure, axis = plt.subplots()
    axis.set_title("A line")
    stage.figure(figure, "line", "It is straight.")
    facts = [Claim("Rows", "-", 3, None, "fact")] if name.startswith("04") else []
    stage.verdict([Claim("Tokens fall", "-19 %", "-25 %", True, "report"), *facts])
    stage.log(reward=0.5)
    stage.record(reward=0.5)
    (stage.checkpoints / "student").mkdir()
    (stage.checkpoints / "student" / "config.json").write_text("{}")
    stage.finish()
    return stage


def state_of(folder: Path) -> dict[str, tuple]:
    """Every path below with its content and the time of its last change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def test_a_run_gives_stages_settings_tables_figures_and_verdicts(outputs):
    run = lab.open_run("r")
    assert list(run.stages.index) == ["04_cold_start", "05_step_srpo"]
    assert run.stages.loc["05_step_srpo", "claims held"] == "1 of 1"
    assert (run.profile, run.seed) == ("tiny", 0)
    assert run.settings["step_srpo.omega"] == 0.9 == run.config.step_srpo.omega
    assert run.settings["cold_start.steps"] == lab.load_profile("tiny").cold_start.steps
    rollouts = run.table("05_step_srpo", "rollouts")
    assert list(rollouts["correct"]) == [None, True] and list(rollouts["step"]) == [0, 1]
    assert list(rollouts["mode"].isna()) == [False, True]
    assert run["5"].tables == ["metrics.jsonl", "plan.csv", "rollouts.jsonl"]
    assert run["05"].rows("plan").to_dict("list") == {"layer": [3], "loss": [0.5]}
    assert run["05"].headline == {"reward": 0.5}
    assert list(run.verdicts["verdict"]) == ["held", "", "held"]
    assert list(run.verdicts["kind"]) == ["report", "fact", "report"]
    assert list(run.verdicts["stage"]) == ["04_cold_start", "04_cold_start", "05_step_srpo"]
    assert list(run.figures["stage"]) == list(run.stages.index)
    assert run["05"].figure("line").data.startswith(b"\x89PNG")
    assert run["05"].student == outputs / "r/05_step_srpo/checkpoints/student"


def test_nothing_is_written_whatever_is_looked_at(outputs):
    before = state_of(outputs)
    run = lab.open_run("r")
    run._repr_html_(), run.settings, run.verdicts, run.figures
    run.config.step_srpo.omega = 0.1  # of a copy
    assert run.settings["step_srpo.omega"] == 0.9
    for stage in run.stages.index:
        for name in run[stage].tables:
            run[stage].rows(name)
    assert state_of(outputs) == before
    writers = ("write", "log", "conclude", "journal", "finish", "close")
    assert not [name for name in writers if hasattr(run["05"], name)]


@pytest.mark.parametrize("place", ["notebooks", "."])
def test_it_opens_from_the_notebooks_and_from_the_root(outputs, monkeypatch, place):
    monkeypatch.delenv("KATLAB_ROOT")
    (outputs.parent / "notebooks").unlink()
    (outputs.parent / "notebooks").mkdir()
    monkeypatch.chdir(outputs.parent / place)
    assert lab.open_run("r").dir == outputs.resolve() / "r"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda run: lab.open_run("s"), r"There is no run 's' in .* \(there: r\)"),
        (lambda run: lab.open_run("../r"), "no name for a run"),
        (lambda run: run["06"], "06_evaluation of run 'r' is not done; run: katlab run --run r"),
        (lambda run: run["05"].rows("rollout"), "did you mean 'rollouts.jsonl'"),
        (lambda run: run["05"].figure("lines"), "did you mean 'line'"),
    ],
)
def test_mistakes_are_one_sentence(outputs, ask, words):
    with pytest.raises(UserError, match=words):
        ask(lab.open_run("r"))


def test_an_unfinished_run_says_so_and_what_is_done_may_be_read(outputs):
    begun = StageRun.create(stages.outputs(), "r", "06_evaluation", profile="tiny")
    with pytest.raises(UserError, match=r"not finished \(06_evaluation is running\).*unfinished="):
        lab.open_run("r")
    begun.close("failed", "no towel")
    with pytest.raises(UserError, match="06_evaluation is failed"):
        lab.open_run("r")
    run = lab.open_run("r", unfinished=True)
    assert list(run.stages.index) == ["04_cold_start", "05_step_srpo"]
    with pytest.raises(UserError, match="06_evaluation of run 'r' is not done"):
        run["06"]
    os.rename(outputs / "r" / "06_evaluation", outputs / "only")
    (outputs / "s").mkdir()
    os.rename(outputs / "only", outputs / "s" / "06_evaluation")
    with pytest.raises(UserError, match="Nothing of run 's' is done yet"):
        lab.open_run("s", unfinished=True)
