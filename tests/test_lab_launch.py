"""One training function, three ways to run it: the same metrics."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from katlab.lab import launch, runs
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
    monkeypatch.setenv("KATLAB_ROOT", os.path.dirname(os.path.dirname(__file__)))
    assert launch.main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_stage_without_training_says_which_train(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KATLAB_ROOT", os.path.dirname(os.path.dirname(__file__)))
    stage = StageRun.create(tmp_path, "r", "00_start_here")
    assert launch.main(["00_start_here", "--dir", str(stage.dir)]) == 2
    assert "trains nothing; choose one of: " in capsys.readouterr().err


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
    return folder


def test_in_process_training_gives_the_notebooks_metrics(smoke, again, monkeypatch):
    monkeypatch.setenv("KATLAB_ROOT", str(smoke.parents[1]))
    launch.trainer(STAGE)(StageRun.open(again))
    assert training(again) == training(smoke / STAGE) != []


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
