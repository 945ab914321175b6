"""Forks take over what does not depend on the change; sweeps are forks, and go on."""

import pytest
from conftest import write_notebook

from katlab import UserError, cli, lab
from katlab.lab import identity, pipeline, records, variants
from katlab.lab.runs import StageRun

FIRST, SECOND, LAST = "01_layer_saturation", "02_dual_regime_data", "08_scaling_plan"
THIRD = "03_mtp_distillation"  # needs 01 and 02
CELL = {"profile": "nano", "run": "demo", "seed": 0, "overrides": {}, "report_to": "none"}
SAMPLES = {"dual_regime_data.samples": 2}
TELL = "stage.record(samples=stage.config.dual_regime_data.samples, seed=stage.seed)"


def finished(stage: StageRun) -> StageRun:
    stage.conclude({"loss": 0.5})
    (stage.checkpoints / "weights").write_text(stage.name)
    stage.finish()
    return stage


@pytest.fixture
def demo(project):
    """Run demo with its three stages finished (no kernel was needed)."""
    for name in (FIRST, SECOND, LAST):
        finished(lab.begin(name, dict(CELL)))
    return project / "outputs/demo"


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fork_takes_over_what_does_not_depend_on_the_change(demo):
    before = content(demo)
    parts = variants.fork("demo", "new", SAMPLES)
    assert [(part.stage, part.taken, part.why) for part in parts] == [
        (FIRST, True, "taken from demo"),
        (SECOND, False, "to run: dual_regime_data.samples 3 -> 2"),
        (LAST, True, "taken from demo"),
    ]
    new = demo.with_name("new")
    assert (new / FIRST / "checkpoints/weights").samefile(demo / FIRST / "checkpoints/weights")
    record = records.read(new / FIRST)
    assert (record["id"], record["taken_from"]) == (f"new/{FIRST}", "demo")
    assert record["parameters"]["overrides"] == SAMPLES
    assert identity.read(new) == identity.Identity(overrides=SAMPLES, forked_from="demo")
    assert not (new / SECOND).exists()
    assert content(demo) == before


def test_what_comes_after_the_change_is_to_be_run_as_well(demo, project):
    write_notebook(project / f"notebooks/{THIRD}.ipynb", THIRD)
    finished(lab.begin(THIRD, dict(CELL)))
    whys = {
        part.stage: part.why for part in variants.fork("demo", "a", {"layer_saturation.add": 1})
    }
    assert whys[THIRD] == "to run: after 01"
    assert whys[SECOND] == whys[LAST] == "taken from demo"  # other layers, the same corpus
    whys = {part.stage: part.why for part in variants.fork("demo", "b", seed=1)}
    assert whys.pop(THIRD) == "to run: after 01, 02"
    assert set(whys.values()) == {"to run: seed 0 -> 1"}


def test_a_fork_leaves_what_was_not_finished_or_is_of_other_files(demo, project):
    verifier = {"rewards.mine": "mine.py"}
    begun = lab.begin(FIRST, CELL | {"run": "own", "overrides": verifier})
    parts = {part.stage: part.why for part in variants.fork("own", "a")}
    assert parts[FIRST] == "to run: running in own" and parts[LAST] == "to run: not run in own"
    finished(begun)
    (project / "mine.py").write_text("def verify(): ...")
    parts = {part.stage: part.why for part in variants.fork("own", "b")}
    assert parts[FIRST] == "to run: code or files changed since own made it"


def test_the_same_fork_goes_on_and_another_of_its_name_is_refused(demo):
    variants.fork("demo", "new", SAMPLES)
    finished(lab.begin(SECOND, CELL | {"run": "new"}))
    before = content(demo.with_name("new"))
    again = variants.fork("demo", "new", SAMPLES)
    assert {part.why for part in again} == {"there already, done"}
    for overrides, seed in (({"dual_regime_data.samples": 4}, None), (SAMPLES, 1), ({}, None)):
        with pytest.raises(UserError, match="There is a run 'new' already"):
            variants.fork("demo", "new", overrides, seed)
    with pytest.raises(UserError, match="There is a run 'demo' already"):
        variants.fork("demo", "demo")
    after = content(demo.with_name("new"))
    after.pop(demo.with_name("new") / "index.html")
    before.pop(demo.with_name("new") / "index.html")
    assert after == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fork", "nope", "new"], "There is no run 'nope'"),
        (["fork", "demo", "a/b"], "'a/b' is no name for a run"),
        (["fork", "demo", "new", "-o", "step_srpo.omga=1"], "did you mean 'omega'"),
        (["fork", "demo", "new", "-o", "step_srpo.omega=-5"], "takes a number at least 0, not -5"),
        (["fork", "demo", "new", "-o", "step_srpo"], "name=value"),
        (["fork", "demo", "new", "--seed", "-1"], "Seed -1 is out of range"),
        (["sweep", "demo"], "Name what is to vary"),
        (["sweep", "demo", "--seeds", "0,one"], "takes whole numbers, as 0,1,2; not 'one'"),
        (["sweep", "demo", "-o", "step_srpo.omega=0.2,,1"], "leaves a value out"),
        (["sweep", "demo", "-o", "step_srpo.omega=0.2,0.2"], "would be named 'demo-omega-0.2'"),
        (["sweep", "demo", "-o", "step_srpo.omega=0.2,-1"], "takes a number at least 0, not -1"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_written(demo, capsys, arguments, words):
    before = content(demo.parent)
    assert cli.main(arguments) == 2
    told = capsys.readouterr()
    assert words in told.err and len(told.err.splitlines()) == 1 and not told.out
    assert content(demo.parent) == before


def test_values_of_a_sweep_are_typed_and_lists_stay_whole():
    assert variants.parse("0.2, 0.35,1", 0.1) == [0.2, 0.35, 1]
    assert variants.parse("gate,off", "gate") == ["gate", "off"]
    assert variants.parse("[1, 2],[3]", []) == [[1, 2], [3]]


def test_a_sweep_names_every_combination(demo):
    swept = {"step_srpo.omega": [0.2, 0.1], "step_srpo.advantages": ["hipo", "grpo"]}
    forks = variants.combinations("demo", swept, [0, 1])
    assert [fork.run for fork in forks] == [
        f"demo-omega-{omega}-advantages-{name}-seed-{seed}"
        for omega in (0.2, 0.1)
        for name in ("hipo", "grpo")
        for seed in (0, 1)
    ]
    assert forks[0].identity.overrides == {"step_srpo.omega": 0.2}
    told = ["seed 0 -> 1", "step_srpo.advantages hipo -> grpo", "step_srpo.omega 0.1 -> 0.2"]
    assert forks[3].told == ", ".join(told)
    assert not list(demo.parent.glob("demo-*"))


def test_a_variant_of_a_stage_is_one_to_go_on_with(demo, project):
    write_notebook(project / f"notebooks/{THIRD}.ipynb", THIRD)
    stage = finished(lab.begin(THIRD, dict(CELL)))
    before = content(demo)
    stage.settings.steps = 110
    other = stage.variant("new", uld_weight=0.9, **{"trainer.learning_rate": 0.002})
    kept = identity.read(demo.with_name("new"))
    assert kept is not None and kept.overrides == {
        "mtp_distillation.steps": 110,
        "mtp_distillation.uld_weight": 0.9,
        "mtp_distillation.trainer.learning_rate": 0.002,
    }
    assert (other.dir, other.run) == (demo.with_name("new") / THIRD, "new")
    assert other.result() is None and other.settings.uld_weight == 0.9
    assert other.upstream(SECOND) == demo.with_name("new") / SECOND
    assert content(demo) == before
    finished(other)
    assert stage.variant("new", uld_weight=0.9, **{"trainer.learning_rate": 0.002}).result()
    with pytest.raises(UserError, match="did you mean 'uld_weight'"):
        stage.variant("newer", uld_wait=0.9)
    assert not demo.with_name("newer").exists()


def test_a_variant_that_needs_another_upstream_says_what_to_run(demo, project):
    write_notebook(project / f"notebooks/{THIRD}.ipynb", THIRD)
    stage = lab.begin(THIRD, dict(CELL))
    with pytest.raises(UserError, match=f"{THIRD} needs {FIRST}.*katlab run --to 01 --run new"):
        stage.variant("new", **{"lora.r": 4})


@pytest.mark.slow
def test_a_sweep_runs_goes_on_after_a_failure_and_ends_in_one_table(project, capfd):
    """Kernels: the second stage fails for one value until its notebook is mended."""
    path = project / f"notebooks/{SECOND}.ipynb"
    failing = "assert stage.config.dual_regime_data.samples != 4"
    write_notebook(path, SECOND, TELL, failing, "stage.finish()")
    assert cli.main(["run", "--run", "base", "--to", "1"]) == 0
    sweep = ["sweep", "base", "-o", "dual_regime_data.samples=2,4", "--to", "2"]
    assert cli.main(sweep) == 1
    shown = capfd.readouterr().out
    assert "failed: base-samples-4; the same command tries them again" in shown
    done = records.read(project / "outputs/base-samples-2" / SECOND)
    assert done["headline"] == {"samples": 2, "seed": 0}
    write_notebook(path, SECOND, TELL, "stage.finish()")
    assert cli.main(sweep) == 0
    rows = [line.split() for line in capfd.readouterr().out.splitlines()[-2:]]
    assert rows == [["base-samples-2", "2", "0", "2", "0"], ["base-samples-4", "4", "0", "4", "0"]]
    for value in (2, 4):
        first = project / f"outputs/base-samples-{value}" / FIRST
        assert records.read(first)["taken_from"] == "base"
    assert [stage.name for stage in pipeline.select(end="2")] == [FIRST, SECOND]
