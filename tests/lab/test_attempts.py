"""Nothing finished is lost: what `lab.begin` keeps, continues and sets aside; what is stale."""

import json
from pathlib import Path

import pytest
from conftest import write_notebook

from katlab import UserError, lab
from katlab.lab import compare, display, records, report, runs, stages
from katlab.lab.runs import StageRun

FIRST, SECOND = "01_layer_saturation", "02_dual_regime_data"
THIRD, FOURTH = "03_mtp_distillation", "04_cold_start"  # need 01 and 02, 02 and 03
VERIFIER = {"rewards.mine": "mine.py"}  # a file that every stage's work depends on
VALUES = {"profile": "nano", "run": "demo", "seed": 0, "overrides": VERIFIER, "report_to": "none"}


def begin(name: str = FIRST, edit: str = "", **changes) -> StageRun:
    """Begin a stage, after an `edit` of the verifier if one is given: then its work is other."""
    if edit:
        (stages.root() / "mine.py").write_text(edit)
    return lab.begin(name, VALUES | changes)


def finished(stage: StageRun) -> Path:
    """Its work, its page and a file of each, as a notebook that ran to its end leaves them."""
    stage.conclude({"loss": 0.5})
    (stage.checkpoints / "student").mkdir()
    (stage.dir / "report.html").write_text("<nav></nav>the page")
    stage.finish()
    return stage.dir


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_beginning_a_finished_stage_again_loses_nothing(project):
    """Restart & Run All on a finished stage emptied its folder."""
    folder = finished(begin())
    before = content(folder)
    again = begin()
    assert again.dir == folder and again.result() == {"loss": 0.5}
    kept = {name: data for name, data in content(folder).items() if name != "run.json"}
    assert kept == {name: data for name, data in before.items() if name != "run.json"}
    again.finish()
    after, record = json.loads(content(folder)["run.json"]), json.loads(before["run.json"])
    assert after["seconds"] == record["seconds"] and after["headline"] == record["headline"]
    assert [path.name for path in folder.parent.glob("0*")] == [FIRST]


def test_opening_a_finished_stage_leaves_it_done(project, monkeypatch):
    """While a kernel idled `ls` said running, and once it was closed died."""
    folder = finished(begin())
    opened = begin()
    assert records.read(folder)["state"] == "running"
    assert records.state(records.read(folder)) == "done"
    opened.write("run.json", records.read(folder) | {"pid": 2**22 + 1})  # its kernel is closed
    assert records.state(records.read(folder)) == "done"
    assert compare.states(project / "outputs", ["demo"]).loc[
        "demo", ["done", "stopped"]
    ].tolist() == [1, ""]
    monkeypatch.setattr(records, "alive", lambda record: True)  # or idles in another window
    assert begin().result() == {"loss": 0.5}
    opened.write("run.json", records.read(folder) | {"pid": 1})
    with pytest.raises(UserError, match=f"still has {FIRST} of run 'demo' open"):
        begin(edit="1")


def test_a_failure_in_reopened_work_leaves_its_figures(project):
    folder = finished(begin())
    opened = begin()
    opened.close("failed", "a typing mistake in a figure")
    assert opened.result() == {"loss": 0.5}
    assert (folder / "report.html").is_file()
    assert begin().result() == {"loss": 0.5}


def test_other_work_sets_a_finished_attempt_aside_whole(project):
    folder = finished(begin())
    first = content(folder)
    other = finished(begin(edit="1"))
    assert other == folder and (folder / "report.html").is_file()
    second = records.read(folder)["fingerprint"]
    kept = folder.with_name(f"{FIRST}@1")
    assert content(kept) == first
    assert (kept / "checkpoints/student").is_dir()
    begin(edit="2")
    assert records.read(folder.with_name(f"{FIRST}@2"))["fingerprint"] == second
    assert not (folder / "report.html").exists()


def test_numbers_of_attempts_go_on_after_one_is_removed(project):
    for edit in "012":
        finished(begin(edit=edit))
    run = project / "outputs/demo"
    (run / f"{FIRST}@1").rename(project / "elsewhere")
    begin(edit="3")
    assert sorted(path.name for path in run.glob("*@*")) == [f"{FIRST}@2", f"{FIRST}@3"]


def test_an_unfinished_attempt_is_continued_or_set_aside(project):
    stage = begin()
    (stage.checkpoints / "mark").touch()
    stage.close("failed", "no towel")
    assert (begin().checkpoints / "mark").is_file()
    assert not (begin(edit="1").checkpoints / "mark").exists()
    kept = stage.dir.with_name(f"{FIRST}@1")
    assert (kept / "checkpoints/mark").is_file()


def test_files_of_unknown_origin_are_set_aside_as_well(project):
    folder = project / "outputs/demo" / FIRST
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    assert begin().result() is None
    assert (folder.with_name(f"{FIRST}@1") / "result.json").is_file()


def test_an_earlier_attempt_is_no_stage_but_opens_like_one(project):
    finished(begin())
    finished(begin(edit="1"))
    run = project / "outputs/demo"
    assert [folder.name for folder in runs.stage_folders(run)] == [FIRST]
    assert compare.names(project / "outputs") == ["demo"]
    assert len(compare.headline(project / "outputs", ["demo"])) == 1
    earlier = StageRun.open(run / f"{FIRST}@1")
    assert (earlier.name, earlier.seed, earlier.result()) == (FIRST, 0, {"loss": 0.5})
    assert earlier.settings.tokens == 1536


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overrides": {"layer_saturation.tokens": -1}}, "takes a whole number above 0"),
        ({"overrides": {"layer_saturation.tokenz": 1}}, "did you mean 'tokens'"),
        ({"profile": "nanoo"}, "did you mean 'nano'"),
        ({"seed": "one"}, "takes a whole number"),
        ({"run": ""}, "'' is no name for a run"),
        ({"run": "a/b"}, "'a/b' is no name for a run"),
        ({"run": "../esc"}, "is no name for a run"),
        ({"run": "a@1"}, "is no name for a run"),
    ],
)
def test_a_mistake_touches_no_folder(project, changes, words):
    folder = finished(begin())
    before = content(project / "outputs")
    with pytest.raises(UserError, match=words):
        begin(**changes)
    assert content(project / "outputs") == before
    assert [path.name for path in (project / "outputs").iterdir()] == ["demo"]
    assert [path.name for path in folder.parent.glob("0*")] == [FIRST]


def test_a_missing_upstream_stage_touches_no_folder(project):
    with pytest.raises(UserError) as mistake:
        begin(THIRD, seed=1, profile="tiny")
    assert str(mistake.value) == (
        f"{THIRD} needs {FIRST}, which is not run yet (there is no run 'demo'); run: katlab run "
        "--to 01 --run demo --profile tiny --seed 1 -o rewards.mine=mine.py"
    )
    assert not (project / "outputs").exists()


def test_a_stage_is_stale_once_its_upstream_was_run_anew(project):
    for name in (THIRD, FOURTH):
        write_notebook(project / f"notebooks/{name}.ipynb", name)
    first, second, third, fourth = (finished(begin(n)) for n in (FIRST, SECOND, THIRD, FOURTH))
    assert not any(records.stale(folder) for folder in (first, second, third, fourth))
    finished(begin(edit="1"))
    assert records.stale(second) == []
    assert records.stale(third) == [FIRST]
    assert records.stale(fourth) == [THIRD]
    told = compare.states(project / "outputs", ["demo"]).loc["demo", "stale"]
    assert told == f"{THIRD}, {FOURTH}"
    card = display.run_card(StageRun.open(fourth))
    assert f"{THIRD} (stale: 01 was run anew since)" in card
    report.index(first.parent)
    assert "stale: 01 was run anew since" in (third / "report.html").read_text()
    assert "stale" not in (first / "report.html").read_text()
    finished(begin(THIRD))
    assert records.stale(third) == []
    report.index(first.parent)
    assert "stale" not in (third / "report.html").read_text()
    assert records.stale(fourth) == [THIRD]
    again = finished(begin(FOURTH))
    assert records.stale(again) == []


def test_figures_that_a_notebook_no_longer_draws_leave_the_index(project):
    import matplotlib.pyplot as plt

    def draw(stage: StageRun, name: str) -> None:
        figure, axes = plt.subplots()
        axes.set_title("Loss")
        stage.figure(figure, name, "It falls.")

    stage = begin()
    draw(stage, "old")
    draw(stage, "loss")
    finished(stage)
    again = begin()
    draw(again, "loss")
    again.finish()
    assert list(json.loads((again.figures / "index.json").read_text())) == ["loss"]
    assert (again.figures / "old.png").is_file()
