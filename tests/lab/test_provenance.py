"""What counts as a local change: what figures depend on, not what a notebook shows."""

import json
import subprocess
from pathlib import Path

import pytest
from conftest import write_notebook

from katlab.lab import provenance

BOOK = "notebooks/05_step_srpo.ipynb"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("katlab/lab/a.py", "docs/a.md", "data_samples/a.jsonl", "constraints.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1\n")
    write_notebook(tmp_path / BOOK, "05_step_srpo")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "One"]):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)
    return tmp_path


def changed(checkout: Path) -> object:
    return provenance.git(checkout)["changed"]


def edit(checkout: Path, cell: int, **values) -> None:
    book = json.loads((checkout / BOOK).read_text())
    book["cells"][cell] |= values
    (checkout / BOOK).write_text(json.dumps(book))


def test_a_clean_checkout_has_no_changes(checkout):
    assert changed(checkout) is False
    assert len(str(provenance.git(checkout)["sha"])) == 40


def test_an_executed_notebook_is_no_change_but_its_code_is(checkout):
    """Every interactive run was stamped "with local changes", so the stamp meant nothing."""
    told = {"output_type": "stream", "name": "stdout", "text": ["1"]}
    edit(checkout, 3, outputs=[told], execution_count=4, metadata={"trusted": True})
    edit(checkout, 1, source=['profile: str = "tiny"'])
    edit(checkout, 0, source=["# Another title"])
    (checkout / "notebooks/Untitled.ipynb").write_text((checkout / BOOK).read_text())
    (checkout / "docs/a.md").write_text("2\n")
    (checkout / "data_samples/mine.jsonl").write_text("{}\n")
    assert changed(checkout) is False
    edit(checkout, 3, source=["stage.settings.omega = 0.9"])
    assert changed(checkout) is True


@pytest.mark.parametrize(
    "name", ["katlab/lab/a.py", "katlab/mine.py", "data_samples/a.jsonl", "constraints.txt"]
)
def test_code_and_data_are_changes(checkout, name):
    (checkout / name).write_text("2\n")
    assert changed(checkout) is True


def test_a_notebook_that_is_gone_is_a_change(checkout):
    (checkout / BOOK).unlink()
    assert changed(checkout) is True


def test_outside_a_repository_nothing_is_said(tmp_path):
    assert provenance.git(tmp_path) == {}
