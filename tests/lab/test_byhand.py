"""A stage finished by hand in Jupyter has its page as soon as its notebook is saved."""

import json
import time
from pathlib import Path

import nbformat
import pytest
from conftest import write_notebook
from nbclient import NotebookClient

from katlab import cli
from katlab.lab import byhand, fingerprint, records

pytestmark = pytest.mark.slow  # a kernel each
NAME = "01_layer_saturation"
WORK = 'stage.conclude({"loss": 0.5})\nprint("It falls to", stage.result()["loss"])'


class ByHand(NotebookClient):
    """A notebook in a kernel that stays, as in JupyterLab: run, then saved when one likes."""

    def __init__(self, path: Path, session: str = ""):
        self.path, self.session = path, session
        book = nbformat.read(path, as_version=4)
        super().__init__(book, timeout=300, kernel_name="python3")

    def run_all(self) -> None:
        for place, cell in enumerate(self.nb.cells):
            self.execute_cell(cell, place)

    def save(self) -> None:
        nbformat.write(self.nb, self.path)


def wait_for(path: Path, words: str) -> None:
    until = time.monotonic() + 120
    while not path.is_file() or words not in path.read_text():
        assert time.monotonic() < until, f"{path} did not get {words!r}"
        time.sleep(0.1)


def edit(book: Path, *code: str) -> Path:
    return write_notebook(book, NAME, *code)


def test_a_saved_notebook_becomes_the_page(project, monkeypatch, capsys):
    copy = edit(project / "mine/attempt.ipynb", WORK, "stage.finish()")
    monkeypatch.setenv("JPY_SESSION_NAME", str(copy))  # as Jupyter tells its kernels
    folder = project / "outputs/demo" / NAME
    by_hand = ByHand(copy)
    with by_hand.setup_kernel():
        by_hand.run_all()
        assert records.read(folder)["state"] == "done"
        assert "drawn once this notebook is saved (Ctrl+S)" in str(by_hand.nb.cells[-1].outputs)
        time.sleep(2 * byhand.EVERY)
        assert not (folder / "report.html").exists() and not byhand.collect(folder)
        by_hand.save()
        wait_for(folder / "report.html", "It falls to 0.5")
        wait_for(folder.parent / "index.html", NAME)
    page = (folder / "report.html").read_text()
    assert "Ctrl+S" not in page and "Run card" not in page
    assert (folder / "notebook.ipynb").is_file()
    # opening it again and running it to the end loses none of it
    by_hand = ByHand(copy)
    with by_hand.setup_kernel():
        by_hand.run_all()
        assert (folder / "report.html").read_text() == page
        assert (folder / "notebook.ipynb").is_file()


def test_a_notebook_saved_after_its_kernel_stopped_is_found_by_report(project, capsys):
    path = edit(project / f"notebooks/{NAME}.ipynb", WORK, "stage.finish()")
    folder = project / "outputs/demo" / NAME
    by_hand = ByHand(path)
    with by_hand.setup_kernel():
        by_hand.run_all()
    assert cli.main(["report", "demo"]) == 0
    assert not (folder / "report.html").exists()  # not saved since: its outputs are not known
    by_hand.save()
    assert cli.main(["report", "demo"]) == 0
    assert "It falls to 0.5" in (folder / "report.html").read_text()
    record = records.read(folder)
    assert record["page"] == fingerprint.page(NAME, record["parameters"], record["fingerprint"])
    assert "finished" not in record
    json.loads((folder / "notebook.ipynb").read_text())
