"""`katlab doctor`: what it finds on machines with and without a GPU, and what it prints."""

from importlib import util

import pytest
import torch
from conftest import CHECKOUT

from katlab import cli, doctor
from katlab.lab import provenance, runs
from katlab.lab.runs import StageRun


def test_every_gpu_is_shown_with_its_memory(monkeypatch):
    sizes = {0: (70 * 2**30, 79.25 * 2**30), 1: (2**30, 2 * 2**30)}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: ["H100", "T4"][i])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda i: sizes[i])
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert doctor.gpus() == [
        ("GPU 0", True, "H100, 79.2 GiB, 70.0 free, CUDA 12.8", ""),
        ("GPU 1", True, "T4, 2.0 GiB, 1.0 free, CUDA 12.8", ""),
    ]


def test_no_gpu_is_no_fault_and_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    [(name, well, detail, _)] = doctor.gpus()
    assert (name, well, detail) == ("GPU", True, "none: sampling and training run on the CPU")


def test_without_torch_the_rest_is_still_found(monkeypatch):
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "torch" else found(name))
    assert doctor.gpus() == []


def test_packages_are_held_against_their_pins(monkeypatch):
    rows = {name: (well, detail) for name, well, detail, _ in doctor.packages()}
    assert rows["trl"] == (True, provenance.versions()["trl"])
    monkeypatch.setattr(provenance, "versions", lambda: {"trl": "0.1"})
    rows = {name: (well, detail, remedy) for name, well, detail, remedy in doctor.packages()}
    assert not rows["trl"][0] and rows["trl"][1].startswith("0.1, tested with 1.16")
    assert rows["trl"][2].startswith("pip install trl==1.16")
    assert rows["torch"][1].startswith("missing")


def test_a_run_that_died_is_found(tmp_path, monkeypatch):
    for name in ("notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    monkeypatch.setenv("KATLAB_ROOT", str(tmp_path))
    stage = StageRun.create(tmp_path / "outputs", "r", "05_step_srpo")
    record = runs.read(stage.dir)
    stage.write("run.json", record | {"pid": 2**22 + 1})  # beyond what Linux gives out
    notebooks, died = doctor.project()
    assert notebooks[1]
    assert died[1:] == (False, "r/05_step_srpo", "katlab run --run r")


@pytest.mark.parametrize(("well", "status"), [(True, 0), (False, 1)])
def test_a_fault_is_printed_with_its_remedy(monkeypatch, capsys, well, status):
    for name in ("gpus", "packages", "project", "verifiers"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "machine", lambda: [("disk", well, "1 GiB free", "free 5 GiB")])
    assert cli.main(["doctor"]) == status
    shown = capsys.readouterr().out
    assert "disk  1 GiB free" in shown
    assert ("remedy: free 5 GiB" in shown) == (not well)
