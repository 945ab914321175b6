"""A run keeps its profile, seed and overrides; other values are refused with a command."""

import json
import shlex

import pytest

from katlab import UserError, cli, lab
from katlab.lab import identity, pipeline, records, variants
from katlab.lab.identity import Identity
from katlab.lab.runs import StageRun

FIRST = "01_layer_saturation"
CELL = {"profile": "nano", "run": "demo", "seed": 0, "overrides": {}, "report_to": "none"}
LONG = {"layer_saturation.length": 64}


@pytest.fixture
def demo(project):
    """A run of profile tiny, seed 1 and one override, whose first stage is finished."""
    stage = lab.begin(FIRST, CELL | {"profile": "tiny", "seed": 1, "overrides": LONG})
    stage.conclude({"loss": 0.5})
    stage.finish()
    return project / "outputs/demo"


def content(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_keeps_what_it_was_begun_with(demo):
    kept = Identity("tiny", 1, LONG)
    assert json.loads((demo / "settings.json").read_text())["overrides"] == LONG
    assert identity.read(demo) == kept
    filled = pipeline.arguments(pipeline.select(), {"run": "demo"})
    assert {json.dumps({k: v[k] for k in identity.KEYS}) for v in filled.values()} == {
        json.dumps(kept.values())
    }
    same = {"seed": 1, "profile": "tiny", "overrides": {"layer_saturation.length": 64}}
    assert identity.settle(demo, same) == kept
    of_the_profile = {"layer_saturation.tokens": 256}  # tiny's own value, said again
    assert identity.settle(demo, {"overrides": of_the_profile}) == kept


@pytest.mark.parametrize(
    ("given", "words", "command"),
    [
        ({"seed": 2}, "seed 1, not 2", "katlab fork demo demo-seed-2 --seed 2"),
        ({"seed": 0}, "seed 1, not 0", "katlab fork demo demo-seed-0 --seed 0"),
        (
            {"overrides": {"layer_saturation.length": 32}},
            "layer_saturation.length 64, not 32",
            "katlab fork demo demo-length-32 -o layer_saturation.length=32",
        ),
        (
            {"overrides": {"step_srpo.omega": 0.3}, "seed": 2},
            "seed 1, not 2, step_srpo.omega 0.1, not 0.3",
            "katlab fork demo demo-omega-0.3-seed-2 --seed 2 -o step_srpo.omega=0.3",
        ),
        (
            {"overrides": {"prompts.tag": "Tag it, please."}},
            "prompts.tag 'Tag it.', not 'Tag it, please.'",
            "katlab fork demo demo-tag-Tag-it-please -o 'prompts.tag=Tag it, please.'",
        ),
        (
            {"profile": "nano"},
            "profile 'tiny', not 'nano'",
            "katlab run --run demo-nano --profile nano --seed 1 -o layer_saturation.length=64",
        ),
    ],
)
def test_another_value_is_refused_with_the_command_for_a_variant(demo, given, words, command):
    before = content(demo)
    with pytest.raises(UserError) as mistake:
        pipeline.run(pipeline.select(only=["1"]), {"run": "demo", **given})
    told = str(mistake.value)
    assert f"keeps its settings ({words}); " in told and told.endswith(f": {command}")
    assert content(demo) == before
    records.check_name(shlex.split(command)[3])


def test_a_mistake_in_a_new_value_is_told_as_such(demo):
    with pytest.raises(UserError, match="takes a whole number above 0, not -1"):
        identity.settle(demo, {"overrides": {"step_srpo.steps": -1}})
    with pytest.raises(UserError, match="did you mean 'omega'"):
        identity.settle(demo, {"overrides": {"step_srpo.omga": 1}})


def test_a_notebook_with_the_default_cell_takes_the_runs_own_values(demo):
    cell = dict(CELL)
    again = lab.begin(FIRST, cell)
    assert (again.profile, again.seed, again.overrides) == ("tiny", 1, LONG)
    assert again.result() == {"loss": 0.5}
    assert (cell["profile"], cell["seed"], cell["overrides"]) == ("tiny", 1, LONG)
    assert not list(demo.glob("*@*"))


@pytest.mark.parametrize(
    "given", [{"seed": 2}, {"profile": "smol-135m"}, {"overrides": {"step_srpo.omega": 0.3}}]
)
def test_a_notebook_with_another_value_is_refused(demo, given):
    before = content(demo)
    with pytest.raises(UserError, match="Run 'demo' keeps its settings"):
        lab.begin(FIRST, CELL | given)
    assert content(demo) == before


def test_a_profile_of_ones_own_may_not_change_under_its_run(project):
    """Later stages would read other values than earlier ones, and nothing would say so."""
    mine = project / "mine.toml"
    mine.write_text('extends = "tiny"\n[step_srpo]\nomega = 0.2\n[rewards]\nx = "x.py"\n')
    stage = lab.begin(FIRST, CELL | {"profile": str(mine)})
    stage.conclude({})
    run = stage.dir.parent
    assert identity.settle(run, {}).as_read["step_srpo.omega"] == 0.2
    with pytest.raises(UserError, match="rewards.y None, not 'y.py'"):
        identity.settle(run, {"overrides": {"rewards.y": "y.py"}})
    kept = json.loads((run / "settings.json").read_text())
    del kept["as_read"]["lora.r"]  # as if the code had got it since
    (run / "settings.json").write_text(json.dumps(kept))
    assert identity.settle(run, {}).profile == str(mine)
    mine.write_text(mine.read_text().replace("0.2", "0.4"))
    with pytest.raises(UserError) as mistake:
        lab.begin(FIRST, dict(CELL))
    assert str(mistake.value) == (
        "Run 'demo' keeps its settings (step_srpo.omega 0.2, not 0.4); "
        "begin a variant with: katlab fork demo demo-omega-0.4 -o step_srpo.omega=0.4"
    )
    variants.fork("demo", "demo-omega-0.4", {"step_srpo.omega": 0.4})
    assert identity.settle(run.with_name("demo-omega-0.4"), {}).as_read["step_srpo.omega"] == 0.4


def old(project, **stages):
    """A run from before settings.json: stage records alone."""
    for name, how in stages.items():
        folder = project / "outputs"
        StageRun.create(folder, "old", name.strip("_"), **how).finish()
    return project / "outputs/old"


def test_an_old_run_is_what_its_stages_agree_on(project):
    run = old(project, _01_layer_saturation={"seed": 3}, _05_step_srpo={"seed": 3})
    assert identity.read(run) == Identity(seed=3)
    with pytest.raises(UserError, match="seed 3, not 4"):
        identity.settle(run, {"seed": 4})
    identity.keep(run, identity.settle(run, {}))
    assert json.loads((run / "settings.json").read_text())["seed"] == 3


def test_an_old_run_that_mixes_says_so(project):
    run = old(project, _04_cold_start={}, _05_step_srpo={"profile": "tiny"})
    with pytest.raises(UserError, match=r"more than one profile \(nano in 04; tiny in 05\)"):
        identity.settle(run, {})


def test_failed_attempts_alone_may_be_corrected(project):
    stage = lab.begin(FIRST, CELL | {"overrides": LONG})
    stage.close("failed", "20 rows and 240 are asked for")
    wanted = identity.settle(stage.dir.parent, {"overrides": {"layer_saturation.queries": 10}})
    assert wanted.overrides == LONG | {"layer_saturation.queries": 10}
    stage.close("interrupted")
    with pytest.raises(UserError, match="keeps its settings"):
        identity.settle(stage.dir.parent, {"seed": 1})


NAMES = ["{seed}", "a b", "../x", "a/b", "", "a=b", ".a", "-a", "a@1", "ü", "a\n", "a" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_a_run_name_is_plain_or_nothing_is_written(project, capsys, name):
    for begin in (
        lambda: lab.begin(FIRST, CELL | {"run": name}),
        lambda: StageRun.create(project / "outputs", name, FIRST),
        lambda: pipeline.run(pipeline.select(only=["1"]), {"run": name}),
    ):
        with pytest.raises(UserError, match="is no name for a run; use letters"):
            begin()
    for command in (["run", f"--run={name}"], ["stage", "1", f"--run={name}"]):
        assert cli.main(command) == 2
        told = capsys.readouterr()
        assert "is no name for a run; use letters" in told.err and not told.out
    assert sorted(path.name for path in project.iterdir()) == ["notebooks", "pyproject.toml"]
    assert not (project.parent / "x").exists()


@pytest.mark.parametrize("name", ["a", "Demo_2.1-b", "_x", "0", "a" * 100])
def test_plain_names_pass(name):
    records.check_name(name)
