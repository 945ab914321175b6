"""A real Jupyter kernel: what a cell shows of a mistake, of libraries, of training that is cut."""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from katlab.lab import engine

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


def test_a_mistake_is_one_red_sentence_without_a_traceback(kernel):
    [(kind, content)] = run(kernel, MISTAKE)
    assert kind == "error"
    assert content["traceback"] == ["\x1b[31mBring tea.\x1b[0m"]
    [(_, content)] = run(kernel, "1 / 0")  # other errors keep theirs
    assert len(content["traceback"]) > 2


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
