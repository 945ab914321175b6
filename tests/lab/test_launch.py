"""One training function, three ways to run it: the same metrics."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import CHECKOUT

from katlab.lab import launch, runs, stages
from katlab.lab.runs import StageRun

STAGE = "04_cold_start"
CLOCK = ("runtime", "per_second")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["04_cold_strat", "--dir", "."], "did you mean '04_cold_start'"),
        ([STAGE, "--dir", "."], "no run.json"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KATLAB_ROOT", str(CHECKOUT))
    assert launch.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_stage_without_a_package_says_which_have_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KATLAB_ROOT", str(CHECKOUT))
    stage = StageRun.create(tmp_path, "r", "00_start_here")
    assert launch.main(["00_start_here", "--dir", str(stage.dir)]) == 2
    assert "has no work but its notebook; choose one of: 01_layer" in capsys.readouterr().err


def test_every_package_can_be_launched():
    known = [stage for stage in stages.discover() if stage.module]
    assert len(known) == 9
    for stage in known:
        run = launch.work_of(stage)
        if not stage.always:  # which must read other runs again
            assert run.__wrapped__.__module__ == stage.module, f"{stage.name} lacks @lab.work"


def test_a_launched_stage_records_its_work_and_does_it_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KATLAB_ROOT", str(CHECKOUT))
    stage = StageRun.create(tmp_path, "r", "08_scaling_plan", fingerprint="x")
    arguments = ["08_scaling_plan", "--dir", str(stage.dir)]
    assert launch.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures == stage.result() and figures["layers"] == 80
    assert figures.items() <= runs.read(stage.dir)["headline"].items()
    (stage.dir / "scaling.csv").unlink()
    assert launch.main(arguments) == 0
    assert json.loads(capsys.readouterr().out) == figures
    assert not (stage.dir / "scaling.csv").exists()


def training(folder) -> list[dict]:
    """The rows that the trainer logged, without what depends on the clock."""
    rows = [row for row in StageRun.open(folder).metrics() if row.get("phase") == "train"]
    return [{k: v for k, v in row.items() if not k.endswith(CLOCK)} for row in rows]


@pytest.fixture
def again(smoke, tmp_path):
    """A copy of the smoke run whose cold start is about to train once more."""
    shutil.copytree(smoke, tmp_path / "again")
    folder = tmp_path / "again" / STAGE
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.jsonl").unlink()
    (folder / "result.json").unlink()
    return folder


@pytest.mark.slow
def test_in_process_training_gives_the_notebooks_metrics(smoke, again, monkeypatch):
    monkeypatch.setenv("KATLAB_ROOT", str(smoke.parents[1]))
    launch.work_of(stages.find(STAGE))(StageRun.open(again))
    assert training(again) == training(smoke / STAGE) != []


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["-m"], ["-m", "torch.distributed.run", "--nproc-per-node", "1", "-m"]]
)
def test_a_launcher_gives_the_notebooks_metrics(smoke, again, launcher):
    command = [sys.executable, *launcher, "katlab.lab.launch", STAGE, "--dir", str(again)]
    environment = os.environ | {"KATLAB_ROOT": str(smoke.parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert training(again) == training(smoke / STAGE)
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics.items() <= runs.read(again)["headline"].items()
