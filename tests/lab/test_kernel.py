"""A real Jupyter kernel: what a cell shows of a mistake, of libraries, of training that is cut."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from katlab.lab import engine
from katlab.lab.work import INTERRUPTED

SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_training import Line, arguments, stage as begun, training
from transformers import Trainer, TrainerCallback, TrainingArguments

class Rest(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        time.sleep({rest})

stage = begun(Path({root!r}), steps=60, trainer__save_steps=5, trainer__logging_steps=1)
stage.shows = True
own = arguments(stage, TrainingArguments, output_dir=str(stage.checkpoints), batch_size=2)
told = [stage.callback("a line", show={{"loss": "the loss"}}), Rest()]
rows = [{{"x": 1.0, "labels": 2.0}}] * 120
training.train(Trainer(Line(), own, train_dataset=rows, callbacks=told))
"""
SILENT = {"IPython", "katlab", "matplotlib", "pandas", "torch"}  # while they are imported
MISTAKE = 'import katlab\nraise katlab.UserError("Bring tea.")'


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[BlockingKernelClient]:
    """A kernel as JupyterLab starts it: nothing is run in it beforehand."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(CHECKOUT / "notebooks"))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client: BlockingKernelClient, code: str) -> list[tuple[str, dict]]:
    """(message type, content) of what a cell shows."""
    shown: list[tuple[str, dict]] = []
    client.execute_interactive(
        code, timeout=240, output_hook=lambda m: shown.append((m["msg_type"], m["content"]))
    )
    return [(kind, content) for kind, content in shown if kind not in ("status", "execute_input")]


def test_a_mistake_is_one_sentence_without_a_traceback(kernel):
    [(kind, content)] = run(kernel, MISTAKE)
    assert kind == "error"
    assert content["traceback"] == ["Bring tea."]
    [(_, content)] = run(kernel, "1 / 0")  # other errors keep theirs
    assert len(content["traceback"]) > 2


def test_an_interrupted_stage_says_how_to_go_on(kernel, tmp_path):
    code = f"""
from katlab import lab
stage = lab.StageRun.create({str(tmp_path)!r}, "r", "04_cold_start", profile="tiny")

@lab.work
def run(stage):
    raise KeyboardInterrupt

run(stage)"""
    [(_, content)] = run(kernel, code)
    assert content["ename"] == "KeyboardInterrupt", "what tells a batch that it was stopped"
    assert content["traceback"] == [INTERRUPTED]


def test_a_mistake_still_fails_a_batch(tmp_path):
    cell = nbformat.v4.new_code_cell(MISTAKE)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "a.ipynb")
    with pytest.raises(engine.Failed, match="^Bring tea.$") as failed:
        engine.execute(tmp_path / "a.ipynb", tmp_path / "out.ipynb", {})
    assert failed.value.user


def first_cell(path: Path) -> str:
    """The imports of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    tree = ast.parse(next(source for source in code if "import " in source))
    return "\n".join(
        ast.unparse(n) for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)
    )


@pytest.mark.parametrize("path", sorted((CHECKOUT / "notebooks").glob("*.ipynb")), ids=str)
def test_no_notebook_imports_a_library_that_speaks_before_ours_is_there(path):
    tree = ast.parse(first_cell(path))
    names = [a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names]
    names += [n.module for n in tree.body if isinstance(n, ast.ImportFrom)]
    assert {name.partition(".")[0] for name in names} <= SILENT


@pytest.mark.slow
def test_the_first_cell_shows_nothing(kernel):
    assert run(kernel, first_cell(CHECKOUT / "notebooks" / "02_dual_regime_data.ipynb")) == []
    [(_, shown)] = run(kernel, "import sys; 'transformers' in sys.modules")
    assert shown["data"]["text/plain"] == "True"


@pytest.mark.slow
def test_a_cell_that_is_interrupted_and_run_again_goes_on_and_draws_the_whole_curve(tmp_path):
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    drawn: list[list[str]] = []  # the points of each curve shown

    def watch(stop_at: float = 101.0) -> str:
        """What ended the cell; it is interrupted once the curve has come so far, in percent."""
        ended = "ok"
        while True:
            message = client.get_iopub_msg(timeout=120)
            kind, content = message["msg_type"], message["content"]
            page = str(content.get("data", {}).get("text/html", ""))
            if points := re.search(r'<polyline points="([^"]*)"', page):
                drawn.append(points[1].split())
                if float(drawn[-1][-1].partition(",")[0]) > stop_at:
                    stop_at = 101.0
                    manager.interrupt_kernel()
            if kind == "error":
                ended = content["ename"]
            if kind == "status" and content["execution_state"] == "idle":
                return ended

    try:
        told = {"tests": str(Path(__file__).parent), "root": str(tmp_path)}
        client.execute(SLOW.format(rest=0.1, **told))
        assert watch(stop_at=25.0) == "KeyboardInterrupt"
        before = len(drawn)
        assert before > 2, "the curve moved"
        client.execute(SLOW.format(rest=0.0, **told))
        assert watch() == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    first, last = drawn[before], drawn[-1]
    assert len(first) >= 15, "the steps of the part that was cut off are there at once"
    assert len(last) == 60 and last[-1].startswith("100.0,")
    rows = (tmp_path / "r" / "04_cold_start" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(row)["step"] for row in rows if "loss" in json.loads(row)]
    assert steps == [*range(1, 61)]
