"""What commands print: help, lists, rehearsals, JSON; pages opened, runs removed."""

import json
import logging
import os
import shlex
import subprocess
import sys
import webbrowser
from importlib import metadata

import pytest
from conftest import CHECKOUT, write_notebook

import katlab
from katlab import cli
from katlab.lab import identity, runs
from katlab.lab.claims import Claim
from katlab.lab.runs import StageRun

FIRST, SECOND, LAST = "01_layer_saturation", "02_dual_regime_data", "08_scaling_plan"
OMEGA = {"step_srpo.omega": 0.3}


def printed(capsys, typed: str, status: int = 0) -> str:
    """The output of a command, whose lines all fit 80 columns."""
    assert cli.main(shlex.split(typed)) == status
    told = capsys.readouterr().out
    assert all(len(line) <= 80 for line in told.splitlines() if "/outputs/" not in line), told
    return told


def made(project, run: str, name: str, seconds: float = 62.0, **given) -> StageRun:
    """A finished stage that took some seconds."""
    stage = StageRun.create(project / "outputs", run, name, **given)
    stage.finish()
    stage.write("run.json", runs.read(stage.dir) | {"seconds": seconds})
    return stage


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("typed", ["", "upscale"])
def test_a_command_that_lacks_its_command_prints_its_help(project, capsys, typed):
    told = printed(capsys, typed)
    assert told.startswith(f"usage: katlab {typed}".rstrip()) and "commands:" in told


def commands() -> list[str]:
    """Every command; `upscale` by its own three."""
    [every] = [a.choices for a in cli.parser_of_all()._actions if isinstance(a.choices, dict)]
    return [name for name in every if name != "upscale"] + [
        f"upscale {name}" for name in ("plan", "apply", "verify")
    ]


@pytest.mark.parametrize("name", commands())
def test_every_help_has_examples_that_parse(capsys, name):
    with pytest.raises(SystemExit) as end:
        cli.main([*name.split(), "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert max(map(len, told.splitlines())) <= 80
    examples = told.partition("examples:\n")[2].splitlines()
    assert examples and all(line.startswith(f"  katlab {name}") for line in examples)
    for line in examples:
        cli.parser_of_all().parse_args(shlex.split(line, comments=True)[1:])


def test_help_before_a_command_is_its_help(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["help", "ls"])
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: katlab ls")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_the_version_names_commit_python_and_torch(capsys, option):
    with pytest.raises(SystemExit) as end:
        cli.main([option])
    told = capsys.readouterr().out
    assert end.value.code == 0 and len(told.splitlines()) == 1
    assert told.startswith(f"katlab {katlab.__version__}")
    assert told.rstrip().endswith(f"torch {metadata.version('torch')}")


@pytest.mark.parametrize("typed", ["--help", "--version", "ls", "params 1", "run --help",
                                   "check data_samples/queries.jsonl"])  # fmt: skip
def test_commands_that_only_read_start_without_torch(project, typed):
    code = f"import sys\nsys.path.insert(0, {str(CHECKOUT)!r})\nfrom katlab import cli\n"
    code += f"try:\n    cli.main({shlex.split(typed)!r})\nexcept SystemExit:\n    pass\n"
    code += "sys.exit(bool({'torch', 'transformers', 'papermill', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True)
    assert done.returncode == 0


def test_a_command_is_quiet_before_it_imports_libraries(project, monkeypatch):
    monkeypatch.setattr(logging.getLogger("bitsandbytes"), "level", logging.NOTSET)
    assert cli.main(["params", "1"]) == 0
    assert logging.getLogger("bitsandbytes").level == logging.ERROR


def test_ls_has_a_line_per_run(project, capsys):
    assert "katlab run" in printed(capsys, "ls")
    made(project, "demo", FIRST)
    made(project, "demo", "06_evaluation").record(final_auto_accuracy=0.883)
    made(project, "idea", FIRST, profile="tiny", seed=1, overrides=OMEGA)
    failed = StageRun.create(
        project / "outputs", "idea", SECOND, profile="tiny", seed=1, overrides=OMEGA
    )
    failed.close("failed", "Bring tea.")
    _, _, demo, idea = printed(capsys, "ls").splitlines()
    assert demo.split() == "demo nano 0 2/3 done 88.3 %".split()
    assert idea.split() == "idea tiny 1 1/3 done, 02 failed – omega=0.3".split()


def test_ls_of_a_run_tells_own_time_marks_and_earlier_attempts(project, capsys):
    stage = made(project, "demo", FIRST, fingerprint="new")
    stage.verdict([Claim("It falls", 1, 2, held, "report") for held in (True, False)])
    made(project, "demo", f"{SECOND}@1", 5.0)
    made(project, "demo", SECOND, 3700.0, upstream={FIRST: "old"})
    taken = made(project, "demo", LAST)
    taken.write("run.json", runs.read(taken.dir) | {"taken_from": "base"})
    head, below, _, _, _, *rows = printed(capsys, "ls demo").splitlines()
    assert head == "demo: profile nano · seed 0 · overrides none"
    assert below == "accuracy – · 1 h 02 min of work in this run"
    first, second, attempt, last = (row.split() for row in rows)
    assert first[:5] == [FIRST, "done", "1", "min", "02"]
    assert first[-5:] == "1 of 2 claims held".split()
    assert second[:2] == [SECOND, "done"] and second[-4:] == ["stale:", "01", "is", "newer"]
    assert attempt[:2] == [f"{SECOND}@1", "done"] and attempt[-2:] == ["earlier", "attempt"]
    assert last[:3] == [LAST, "done", "–"] and last[-3:] == ["taken", "from", "base"]
    assert "3 done, 1 stale, 1 taken" in printed(capsys, "ls")
    told = json.loads(printed(capsys, "ls demo --json"))
    assert [s["seconds"] for s in told["stages"]] == [62.0, 3700.0, None]
    assert told["seconds"] == 3762.0
    assert told["stages"][1]["stale"] == [FIRST]
    assert told["stages"][1]["attempts"] == [f"{SECOND}@1"]


def test_stages_that_disagree_are_shown_as_they_are(project, capsys):
    made(project, "mix", FIRST)
    made(project, "mix", SECOND, profile="tiny", seed=3)
    row = printed(capsys, "ls").splitlines()[2]
    assert "nano | tiny" in row and "0 | 3" in row
    [told] = json.loads(printed(capsys, "ls --json"))
    assert told["profile"] == ["nano", "tiny"] and told["seed"] == [0, 3]


def test_a_fork_without_stages_is_listed_by_what_it_keeps(project, capsys):
    kept = identity.Identity("tiny", 2, OMEGA, "demo")
    identity.keep(project / "outputs/idea", kept)
    [row] = printed(capsys, "ls").splitlines()[2:]
    assert row.split() == "idea tiny 2 0/3 done – omega=0.3".split()
    *_, first, second, last = printed(capsys, "ls idea").splitlines()
    assert first.split() == [FIRST, "not", "run"] and last.split() == [LAST, "not", "run"]


def test_params_tells_defaults_and_settings(project, capsys):
    told = printed(capsys, "params 1")
    assert "seed" in told and "layer_saturation.start" in told and "'half-step'" in told
    read = json.loads(printed(capsys, "params 1 --json"))
    assert read["settings"]["layer_saturation.start"] == "half-step"
    assert read["parameters"]["seed"]["default"] == 0


def test_json_has_no_nan(project, capsys):
    made(project, "demo", FIRST).record(loss=float("nan"))
    told = printed(capsys, "ls demo --json")
    assert json.loads(told, parse_constant=pytest.fail)["stages"][0]["headline"] == {"loss": None}


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"DISPLAY": ":0"}, True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, True),
        ({}, False),
        ({"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}, False),
    ],
)
def test_open_opens_a_page_where_it_is_seen(project, capsys, monkeypatch, environment, shown):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION", "SSH_TTY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    stage = made(project, "demo", LAST)
    pages = {"open demo": stage.dir.parent / "index.html", "open demo 8": stage.dir / "report.html"}
    for typed, page in pages.items():
        page.write_text("")
        assert printed(capsys, typed) == f"{page}\n"
    assert opened == [page.as_uri() for page in pages.values()] * shown


def test_rm_asks_and_spares_what_other_runs_hold(project, capsys, monkeypatch):
    stage = made(project, "a", FIRST)
    (stage.checkpoints / "weights").write_bytes(bytes(2_000_000))
    (stage.dir / "own").write_bytes(bytes(1_000_000))
    other = made(project, "b", FIRST)
    os.link(stage.checkpoints / "weights", other.checkpoints / "weights")
    assert cli.main(["rm", "a"]) == 2  # no terminal to ask on
    captured = capsys.readouterr()
    assert captured.out.startswith("run a: frees 1.0 MB; 2.0 MB more are shared")
    assert "--yes" in captured.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for answer in ("n", "", "nonsense"):
        monkeypatch.setattr("builtins.input", lambda asked, answer=answer: answer)
        assert "Nothing was removed." in printed(capsys, "rm a", 1)
        assert stage.dir.is_dir()
    assert cli.main(["rm", "a", "nowhere"]) == 2 and stage.dir.is_dir()  # all or none
    monkeypatch.setattr("builtins.input", lambda asked: "y")
    (project / "outputs/.old.removed").mkdir()  # that a kill left
    assert "removed a" in printed(capsys, "rm a")
    assert [path.name for path in (project / "outputs").iterdir()] == ["b"]
    assert (other.checkpoints / "weights").stat().st_size == 2_000_000


def test_rm_refuses_a_run_in_which_something_runs(project, capsys):
    stage = StageRun.create(project / "outputs", "a", FIRST)  # this process
    assert cli.main(["rm", "--yes", "a"]) == 2
    assert "is still running 01_layer_saturation" in capsys.readouterr().err
    assert stage.dir.is_dir()


@pytest.mark.slow
def test_a_rehearsal_says_what_a_run_then_does(project, capfd):
    def rehearsed(typed: str) -> dict:
        before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
        told = json.loads(printed(capfd, f"{typed} --dry-run --json"))
        assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before
        return {step["stage"]: step for step in told}

    def acts(steps: dict) -> list:
        return [step["act"] for step in steps.values()]

    first = rehearsed("run --run a")
    assert acts(first) == ["run"] * 3 and first[FIRST]["seconds"] is None
    assert printed(capfd, "run --run a --to 2 -q") == f"{project}/outputs/a/index.html\n"
    assert acts(rehearsed("run --run a")) == ["unchanged", "unchanged", "run"]
    other = rehearsed("run --run b")
    assert acts(other) == ["take", "take", "run"] and other[FIRST]["from"] == "a"
    anew = rehearsed("run --run a --force")
    assert acts(anew) == ["run"] * 3
    assert anew[SECOND]["set_aside"] == f"{SECOND}@1" and anew[SECOND]["seconds"] > 0
    told = printed(capfd, "run --run b --dry-run")
    assert "is taken from run a" in told and "1 stage never timed on profile nano" in told
    done = json.loads(printed(capfd, "run --run b --json"))
    assert [s["taken_from"] for s in done["stages"]] == ["a", "a", ""]
    told = printed(capfd, "run --run b")
    assert "nothing was to be done" in told and "Pigs fly" not in told
    told = printed(capfd, "run --run b --force --only 8")
    assert "✗  08  Pigs fly." in told and "✗ not held" in told


@pytest.mark.slow
def test_quiet_tells_a_failure_on_stderr(project, capfd):
    code = 'import katlab\nraise katlab.UserError("Bring tea.")'
    write_notebook(project / "notebooks" / f"{FIRST}.ipynb", FIRST, code)
    assert cli.main(["run", "-q"]) == 1
    told = capfd.readouterr()
    assert told.out == "" and told.err == f"✗ {FIRST}  Bring tea.\n"
    assert cli.main(["run", "--json"]) == 1
    told = capfd.readouterr()
    assert json.loads(told.out)["stages"][0]["error"] == "Bring tea."


@pytest.mark.slow
def test_a_kernel_is_this_python_whatever_is_installed_as_python3(project, monkeypatch, tmp_path):
    folder = tmp_path / "jupyter/kernels/python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "x",
            "language": "python"}  # fmt: skip
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    assert cli.main(["stage", "8"]) == 0
