"""`katlab ablate`: the list is data, forks by it, one table; it goes on where it stopped."""

import json
import re
import shutil
from pathlib import Path

import gates
import pytest
from conftest import CHECKOUT, write_notebook
from reviewed import STAGES, make

from katlab import UserError, cli, lab
from katlab.lab import identity, profiles, records
from katlab.review import ablations, accepted

NAMES = (
    *("01_layer_saturation", "02_dual_regime_data", "03_mtp_distillation"),
    *("04_cold_start", "05_step_srpo", "06_evaluation"),
)
CELL = {"profile": "nano", "run": "demo", "seed": 0, "overrides": {}, "report_to": "none"}
GRPO = {"step_srpo.advantages": "grpo"}
LIST = """
["plain GRPO"]
step_srpo.advantages = "grpo"
["omega 0"]
step_srpo.omega = 0
["omega 0.1"]
step_srpo.omega = 0.1
["fewer rows"]
cold_start.rows = 70
"""


@pytest.fixture
def path(tmp_path):
    """A list of four rows, one of which changes nothing."""
    made = tmp_path / "mine.toml"
    made.write_text(LIST)
    return made


@pytest.fixture
def outputs(project):
    """Run demo of made-up systems."""
    (project / "outputs").mkdir()
    make(project / "outputs", "demo", 0)
    identity.keep(project / "outputs/demo", identity.Identity())
    return project / "outputs"


def forked(outputs: Path, name: str, **overrides) -> Path:
    """A fork of demo that was run and came out the same."""
    made = shutil.copytree(outputs / "demo", outputs / name)
    identity.keep(made, identity.Identity(overrides=overrides, forked_from="demo"))
    return made


@pytest.mark.parametrize("name", ablations.listed())
def test_every_row_of_the_shipped_list_is_a_setting_of_nano(name):
    settings = ablations.listed()[name]
    plain = profiles.flat(profiles.table("nano"))
    told = profiles.flat(profiles.table("nano", settings))
    assert {*settings} <= {*plain} and all(told[key] == settings[key] for key in settings)


def test_the_shipped_list_has_the_rows_of_the_method():
    rows = ablations.listed().values()
    values = {key: [row[key] for row in rows if key in row] for row in rows for key in row}
    assert values["step_srpo.advantages"] == ["grpo", "adaptthink", "relative"]
    assert values["cold_start.votes"] == ["teachers"]
    assert values["step_srpo.omega"] == [0, 0.05, 0.1, 0.35]
    assert values["step_srpo.judge_consistency"] == ["none", "format", "reward"]
    assert len(values["step_srpo.judge_weight"]) > 1


def test_a_row_is_a_fork_and_one_that_changes_nothing_is_the_run(outputs, path):
    rows = ablations.plan(["demo"], path=path)
    assert {row.name: row.forks[0].run for row in rows} == {
        "plain GRPO": "demo-advantages-grpo",
        "omega 0": "demo-omega-0.0",  # typed as the profile has it, however the list says it
        "omega 0.1": "demo",
        "fewer rows": "demo-rows-70",
    }
    assert [len(row.own) for row in rows] == [1, 1, 0, 1]
    assert [row.from_the_start for row in rows] == [False, False, False, True]
    assert not list(outputs.glob("demo-*"))
    assert [row.name for row in ablations.plan(["demo"], ["omega 0"], path)] == ["omega 0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = [", "is not valid TOML"),
        ("omega = 0.1", "Row 'omega' of .* is to be a table with a setting"),
        ("[omega]", "Row 'omega' of .* is to be a table with a setting"),
        ("[one]\nstep_srpo.omga = 1.0", "did you mean 'omega'"),
        ("[one]\nstep_srpo.omega = -1.0", "takes a number at least 0, not -1"),
        (None, "There is no list of ablations .*; give a TOML file as --list"),
    ],
)
def test_a_list_that_is_none_is_one_sentence(outputs, tmp_path, text, words):
    path = tmp_path / "list.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words) as refused:
        ablations.plan(["demo"], path=path)
    assert "\n" not in str(refused.value)


def test_a_row_that_is_not_listed_is_one_sentence(outputs, path):
    with pytest.raises(UserError, match="no row 'omga 0' in .*; did you mean 'omega 0'"):
        ablations.plan(["demo"], ["omga 0"], path)


def test_the_table_by_hand(outputs, path):
    """The good gate: all right at 36 tokens, from a cold start that thinks on half of the rest."""
    broken = forked(outputs, "demo-advantages-grpo", **GRPO) / STAGES[3] / "arms.jsonl"
    frame = gates.gated(gates.always)
    off = gates.of_final(frame, "off")
    frame.loc[off, "correct"] = False  # it lost what it could answer at once
    frame.drop(columns=["thinks", "well_formed"]).to_json(broken, orient="records", lines=True)
    rows = ablations.plan(["demo"], ["plain GRPO", "omega 0.1", "fewer rows"], path)
    start, final, grpo, same, missing = ablations.table(["demo"], rows)
    assert start[0] == "cold start" and start[3:] == ["50 100", "100", "", ""]
    assert re.fullmatch(r"100\.0 \[9[89]\.\d, 100\.0\]", final[1])
    assert final[2:] == ["36.0", "0 100", "100", "+0.0", "+0.0"]
    assert grpo[0] == "plain GRPO" and grpo[2:4] == ["60.0", "100 100"]
    assert grpo[5:] == ["−60.0*", "+0.0"]
    assert same == ["omega 0.1 (as it is)", *final[1:]]
    assert missing[:2] == ["fewer rows", "not run"]


def test_a_row_of_the_cold_start_shows_its_own(outputs, path):
    forked(outputs, "demo-rows-70", **{"cold_start.rows": 70})
    shown = ablations.table(["demo"], ablations.plan(["demo"], ["fewer rows"], path))
    assert [row[0] for row in shown[2:]] == ["fewer rows, cold start", "fewer rows"]
    assert [row[3] for row in shown[2:]] == ["50 100", "0 100"]


def test_a_review_finds_what_was_made(outputs, path):
    assert ablations.controls(["demo"], path) == []
    forked(outputs, "demo-advantages-grpo", **GRPO)
    assert ablations.controls(["demo"], path) == ["demo-advantages-grpo"]
    shutil.rmtree(outputs / "demo-advantages-grpo" / STAGES[3])
    with pytest.raises(UserError, match="'demo-advantages-grpo' is not finished"):
        accepted.runs(outputs, ["demo"], ablations.controls(["demo"], path), tuned=True)


def test_an_unfinished_run_is_refused(project, capsys):
    (project / "outputs").mkdir()
    assert cli.main(["ablate", "demo"]) == 2
    assert "There is no run 'demo'" in capsys.readouterr().err
    shutil.rmtree(make(project / "outputs", "demo", 0) / STAGES[3])
    assert cli.main(["ablate", "demo"]) == 2
    told = capsys.readouterr().err
    assert "Run 'demo' is not finished (06 not run); run: katlab run --run demo" in told


@pytest.fixture
def whole(project):
    """Run demo with its stages up to 06 finished by code and files as they are now."""
    for path in sorted((project / "notebooks").glob("*.ipynb")):
        path.unlink()
    (project / "data_samples").symlink_to(CHECKOUT / "data_samples")
    made = make(project / "made", "demo", 0) / STAGES[3]
    sample = f"import shutil\nfor name in {accepted.MADE[:3]}:\n"
    sample += f'    shutil.copy(f"{made}/{{name}}", stage.dir)'
    for name in NAMES:
        code = [sample] if name == STAGES[3] else []
        write_notebook(project / f"notebooks/{name}.ipynb", name, *code, "stage.finish()")
        stage = lab.begin(name, dict(CELL))
        stage.conclude({"loss": 0.5})
        stage.finish()
        (stage.checkpoints / "weights").write_text(name)
    for name in accepted.MADE[:3]:
        shutil.copy(made / name, stage.dir)
    stage.write("verdict.json", [])
    (project / "outputs/demo/index.html").write_text("")
    return project / "outputs"


def test_a_run_of_other_code_is_refused(whole):
    assert ablations.check(["demo"]) == ["demo"]
    srpo, sampled = (whole / "demo" / stage / "run.json" for stage in STAGES[2:])
    own = records.read(srpo.parent)["fingerprint"]
    srpo.write_text(srpo.read_text().replace(own, "older"))
    with pytest.raises(UserError, match="not finished .06 stale"):
        ablations.check(["demo"])
    record = json.loads(sampled.read_text())
    record["upstream"]["05_step_srpo"] = "older"
    sampled.write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"was made \(05\); bring it up to date with: katlab"):
        ablations.check(["demo"])


@pytest.mark.slow
def test_it_takes_over_what_is_finished_and_goes_on_where_it_stopped(whole, path, capfd):
    """Kernels: 05 and 06 of one fork; the second call runs nothing."""
    command = ["ablate", "demo", "--list", str(path), "--row", "plain GRPO", "--row", "omega 0.1"]
    assert cli.main(command) == 0
    told = capfd.readouterr().out
    fork = whole / "demo-advantages-grpo"
    for name in NAMES[:4]:
        assert records.read(fork / name)["taken_from"] == "demo"
        assert (fork / name / "checkpoints/weights").samefile(
            whole / "demo" / name / "checkpoints/weights"
        )
    record = records.read(fork / STAGES[3])
    assert record["state"] == "done" and "taken_from" not in record
    lines = told[told.index("accuracy, %") :].splitlines()
    assert max(map(len, lines)) <= 80
    assert re.search(r"^plain GRPO +100\.0 \[.*\] +36\.0 +0 100 +100 +\+0\.0 +\+0\.0$", told, re.M)
    minutes = re.search(r"^1 forks?, (\d+\.\d) minutes of work; this call", told, re.M)
    assert minutes and float(minutes[1]) == round(
        ablations.minutes(ablations.plan(["demo"], ["plain GRPO"], path)), 1
    )
    assert cli.main(command) == 0
    again = capfd.readouterr().out
    assert records.read(fork / STAGES[3]) == record and minutes[1] in again
