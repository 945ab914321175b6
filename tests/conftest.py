"""Shared by all tests: one thread, no network, no telemetry, a small project to run in."""

import ipaddress
import os
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

# Set before any test module imports torch or transformers.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRL_EXPERIMENTAL_SILENCE="1",
    TOKENIZERS_PARALLELISM="false",
    MPLBACKEND="Agg",
)

CHECKOUT = Path(__file__).parents[1]
PARAMETERS = """profile: str = "nano"  # which profile
run: str = "demo"  # folder under outputs/
seed: int = 0
overrides: dict = {}
report_to: str = "none\""""

_connect = socket.socket.connect


def _local_only(self: socket.socket, address: object) -> None:
    """Only this machine may be spoken to: unix sockets and loopback addresses."""
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = address[0]
        if host != "localhost" and not ipaddress.ip_address(host).is_loopback:
            raise RuntimeError(f"A test tried to reach {host}; tests use no network.")
    _connect(self, address)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any test that opens a connection to another machine."""
    monkeypatch.setattr(socket.socket, "connect", _local_only)


def write_notebook(path: Path, name: str, *code: str, parameters: str = PARAMETERS) -> Path:
    """A stage notebook: title, parameters cell, begin, the given code cells."""
    begin = f'from katlab import lab\nstage = lab.begin("{name}", globals())'
    cells = [
        nbformat.v4.new_markdown_cell(f"# {name}\n\nIs $a_1^2 + b = c$ and does `$x$` stay?"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_markdown_cell("## Run"),
        nbformat.v4.new_code_cell(begin),
    ]
    cells += [nbformat.v4.new_code_cell(source) for source in code]
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(book, path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of its own with three quick stages; KATLAB_ROOT points there."""
    (tmp_path / "pyproject.toml").write_text("")
    notebooks = tmp_path / "notebooks"
    write_notebook(
        notebooks / "01_layer_saturation.ipynb",
        "01_layer_saturation",
        '(stage.dir / "plan.txt").write_text("plan")',
        'for i in stage.progress(3, "counting"):\n    stage.log(reward=i / 2)',
        'two = lab.Claim("Two is more than one.", 2, 1 + 1, True, "check")\n'
        "stage.verdict([two])\nstage.finish()",
    )
    write_notebook(
        notebooks / "02_dual_regime_data.ipynb",
        "02_dual_regime_data",
        'plan = (stage.upstream("01_layer_saturation") / "plan.txt").read_text()',
        "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\n"
        'ax.set(title="A line", xlabel="step")\nax.plot([1, 3, 2])\n'
        'stage.figure(fig, "line", "The line rises & falls.")',
        "stage.record(rows=len(plan), seed=stage.seed)\nstage.finish()",
    )
    write_notebook(
        notebooks / "08_scaling_plan.ipynb",
        "08_scaling_plan",
        'pigs = lab.Claim("Pigs fly.", "yes", "no", False, "report")\n'
        'stage.verdict([pigs, lab.Claim("Size.", 40.0, "-", None, "report")])',
        "stage.finish()",
    )
    monkeypatch.setenv("KATLAB_ROOT", str(tmp_path))
    monkeypatch.setenv("KATLAB_RUNNER", "")  # so that what the runner sets is undone
    monkeypatch.delenv("KATLAB_RUNNER")
    return tmp_path


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of every notebook on profile tiny, made once by the command itself."""
    root = tmp_path_factory.mktemp("smoke")
    for name in ("notebooks", "data_samples", "pyproject.toml", "constraints.txt"):
        (root / name).symlink_to(CHECKOUT / name)
    command = [sys.executable, "-m", "katlab.cli", "run", "--profile", "tiny", "--run", "smoke"]
    done = subprocess.run(
        command, env=os.environ | {"KATLAB_ROOT": str(root)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (root / "console.txt").write_text(done.stdout + done.stderr)
    return root / "outputs" / "smoke"


@pytest.fixture
def stage(tmp_path: Path):
    """Stage 04 of a run of its own on profile tiny; nothing is made yet."""
    from katlab.lab import StageRun

    return StageRun.create(tmp_path, "r", "04_cold_start", profile="tiny")


@pytest.fixture(scope="session")
def tokenizer():
    """A small student tokenizer with the tags, trained on a few nano queries."""
    from katlab import template
    from katlab.tasks.nano import build, world

    rows = world.queries(30, seed=0, split="eval")
    texts = [r["messages"][-1]["content"] + r["thought"] + r["direct"] for r in rows]
    made = build.tokenizer("student", texts)
    template.add_tags(made)
    return made


@pytest.fixture(scope="session")
def model(tokenizer):
    """The smallest decoder that can be sampled from, with random weights."""
    from decoder import tiny

    ends = dict(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return tiny(vocab_size=len(tokenizer), num_hidden_layers=1, **ends)
