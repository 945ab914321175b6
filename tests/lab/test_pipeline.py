"""The pipeline on small notebooks: skip, continue, refuse, interrupt; and papermill's contract."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from conftest import write_notebook

from katlab import cli
from katlab.lab import runs
from katlab.lab.lock import run_lock

pytestmark = pytest.mark.slow  # nearly every test starts a kernel
FIRST, SECOND, LAST = "01_layer_saturation", "02_dual_regime_data", "08_scaling_plan"
THIRD = "03_mtp_distillation"  # needs 01 and 02
PLAN = '(stage.dir / "plan.txt").write_text("plan")'
LINE = (
    "import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.set_title('A line')",
    'stage.figure(fig, "line", "The line rises.")\nstage.finish()',
)
WAITING = """import time
for i in stage.progress(400, "waiting"):
    (stage.checkpoints / "reached").write_text(str(i))
    time.sleep(0.05)"""


def states(project: Path, run: str = "demo") -> dict[str, str]:
    records = sorted((project / "outputs" / run).glob("*/run.json"))
    return {path.parent.name: runs.state(runs.read(path.parent)) for path in records}


def started(project: Path, run: str = "demo") -> dict[str, str]:
    records = (project / "outputs" / run).glob("*/run.json")
    return {path.parent.name: runs.read(path.parent)["started"] for path in records}


def content(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def edit(project: Path, name: str, *code: str) -> None:
    write_notebook(project / "notebooks" / f"{name}.ipynb", name, *code)


def test_a_run_is_done_once_and_reruns_only_what_changed(project, capfd):
    (project / "text.txt").write_text("It was a dark night.")
    text = "layer_saturation.text=text.txt"
    edit(project, THIRD, f'stage.upstream("{FIRST}")', "stage.finish()")
    assert cli.main(["run", "--seed", "3", "-o", text]) == 0
    shown = capfd.readouterr().out
    assert shown.rstrip().splitlines()[-1] == str(project / "outputs/demo/index.html")
    assert "Pigs fly." in shown and "not held" in shown and "not applicable" in shown
    assert "Traceback" not in shown and "encryption" not in shown
    assert states(project) == dict.fromkeys((FIRST, SECOND, THIRD, LAST), "done")
    second = runs.read(project / "outputs/demo" / SECOND)
    assert second["headline"] == {"rows": 4, "seed": 3}
    assert not second["upstream"]
    third = runs.read(project / "outputs/demo" / THIRD)
    assert set(third["upstream"]) == {FIRST, SECOND}
    for name in ("run.json", "notebook.ipynb", "report.html", "figures/line.png"):
        assert (project / "outputs/demo" / SECOND / name).is_file()
    before = started(project)

    assert cli.main(["run", "--seed", "3"]) == 0
    assert capfd.readouterr().out.count("unchanged, skipped") == 4
    assert started(project) == before

    path = project / "notebooks" / f"{FIRST}.ipynb"
    path.write_text(path.read_text().replace("does `$x$` stay?", "does `$x$` stay there?"))
    assert cli.main(["run", "--seed", "3"]) == 0
    assert capfd.readouterr().out.count("unchanged, skipped") == 4

    (project / "text.txt").write_text("It was a stormy night.")
    assert cli.main(["run"]) == 0  # the run keeps seed and override
    assert f"the earlier attempt is kept as {FIRST}@1" in capfd.readouterr().out
    after = started(project)
    assert {name for name in before if after[name] != before[name]} == {FIRST, THIRD}
    for name in (FIRST, THIRD):
        earlier = project / "outputs/demo" / f"{name}@1"
        assert runs.read(earlier)["started"] == before[name]
        assert (earlier / "report.html").is_file()

    force = ["run", "--only", "scaling", "--force"]
    assert cli.main(force) == 0
    forced = started(project)
    assert {name for name in after if forced[name] != after[name]} == {LAST}
    assert forced[f"{LAST}@1"] == after[LAST]
    capfd.readouterr()
    assert cli.main(["ls", "demo"]) == 0
    assert capfd.readouterr().out.count("an earlier attempt") == 3
    assert "@1" not in (project / "outputs/demo/index.html").read_text()

    (project / "text.txt").write_text("It was a dark night.")
    assert cli.main(["run"]) == 0  # the earlier attempts are of this very work: they come back
    shown = capfd.readouterr().out
    assert f"same as in {FIRST}@1, taken from there" in shown and "✓ 0" not in shown
    assert started(project)[FIRST] == before[FIRST]
    assert runs.read(project / "outputs/demo" / FIRST)["taken_from"] == f"{FIRST}@1"


def test_an_edited_cell_draws_the_page_again_over_finished_work(project, capfd):
    """Before, every edit of a notebook trained its stage and all later ones again."""
    work = 'stage.conclude({"loss": 0.5})\nstage.log(loss=0.5)'
    edit(project, FIRST, PLAN, work, "stage.finish()")
    assert cli.main(["run"]) == 0
    folder = project / "outputs/demo" / FIRST
    before = started(project)
    record = runs.read(folder)
    edit(project, FIRST, 'stage.record(seen=stage.result()["loss"])', "stage.finish()")
    capfd.readouterr()
    assert cli.main(["run"]) == 0
    assert capfd.readouterr().out.count("unchanged, skipped") == 2
    assert started(project) == before
    after = runs.read(folder)
    assert after["headline"] == {"loss": 0.5, "seen": 0.5}
    assert after["seconds"] == record["seconds"] and after["page"] != record["page"]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1
    assert cli.main(["run"]) == 0
    assert capfd.readouterr().out.count("unchanged, skipped") == 3


def test_a_broken_page_leaves_its_work_and_what_builds_on_it(project, capfd):
    edit(project, FIRST, PLAN, 'stage.conclude({"loss": 0.5})', "stage.finish()")
    edit(project, SECOND, f'stage.upstream("{FIRST}")', "stage.finish()")
    assert cli.main(["run"]) == 0
    before = content(project / "outputs/demo" / FIRST)
    edit(project, FIRST, "1 / 0", "stage.finish()")
    assert cli.main(["stage", "1"]) == 1
    assert f"the earlier attempt is kept as {FIRST}@1" in capfd.readouterr().out
    assert content(project / "outputs/demo" / f"{FIRST}@1") == before
    assert cli.main(["stage", "2", "--force"]) == 0
    edit(project, FIRST, "assert stage.result()", "stage.finish()")
    assert cli.main(["stage", "1"]) == 0
    assert sorted(started(project)) == [FIRST, f"{FIRST}@1", SECOND, f"{SECOND}@1", LAST]
    assert not list((project / "outputs/demo").glob(".*.finished"))


def test_another_run_takes_over_what_is_the_same(project, capfd):
    edit(project, SECOND, '(stage.checkpoints / "weights").touch()',
         'open(stage.dir / "checked.csv", "w").write("once")', *LINE)  # fmt: skip
    assert cli.main(["run", "--run", "a"]) == 0
    assert cli.main(["run", "--run", "b"]) == 0
    assert capfd.readouterr().out.count("same as in run a, taken from there") == 3
    first, second = (project / "outputs" / run / SECOND for run in "ab")
    assert (second / "checkpoints/weights").samefile(first / "checkpoints/weights")
    record = runs.read(second)
    assert (record["id"], record["parameters"]["run"]) == (f"b/{SECOND}", "b")
    assert runs.read(first)["parameters"]["run"] == "a"
    assert (second / "figures/line.png").read_bytes() == (first / "figures/line.png").read_bytes()
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert cli.main(["run", "--run", "b", "--force"]) == 0  # writes anew, never into a's files
    assert "taken from" not in capfd.readouterr().out
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert (project / "outputs/b" / f"{SECOND}@1/report.html").is_file()
    # the work is the same and its page is not: taken over, then drawn again in its own files
    edit(project, SECOND, 'open(stage.dir / "checked.csv", "a").write("again")', "stage.finish()")
    assert cli.main(["run", "--run", "c"]) == 0
    assert (project / "outputs/c" / SECOND / "checked.csv").read_text() == "onceagain"
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before


def test_a_copy_that_a_kill_cut_off_is_no_stage(project, capfd):
    assert cli.main(["run", "--run", "a"]) == 0
    part = project / "outputs/b" / f".{FIRST}.part"
    part.mkdir(parents=True)
    (part / "run.json").write_text((project / "outputs/a" / FIRST / "run.json").read_text())
    assert cli.main(["run", "--run", "b"]) == 0
    assert capfd.readouterr().out.count("taken from there") == 3
    assert not part.exists()


@pytest.mark.parametrize(
    ("code", "words", "links"),
    [
        ('import katlab\nraise katlab.UserError("Bring tea.")', "Bring tea.", False),
        ('raise ValueError("no towel")', "ValueError: no towel", True),
        ("pass", "ended without stage.finish()", True),
        ("import os\nos._exit(1)", "the kernel died", True),
    ],
)
def test_a_failing_stage_is_named_and_stops_the_run(project, capfd, code, words, links):
    edit(project, FIRST, code)
    assert cli.main(["run"]) == 1
    captured = capfd.readouterr()
    assert words in captured.out
    assert "Traceback" not in captured.out + captured.err
    assert ("report.html" in captured.out) == links
    assert states(project) == {FIRST: "failed"}
    assert words in runs.read(project / "outputs/demo" / FIRST)["error"]
    page = (project / "outputs/demo" / FIRST / "report.html").read_text()
    shown = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)  # folded away
    assert "Traceback (most" not in shown and words.split()[-1] in shown


def wait_for(path: Path, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while not path.is_file():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.05)


def start(project: Path) -> subprocess.Popen:
    """`katlab run` as its own process, in the middle of the second stage."""
    edit(project, SECOND, WAITING, "stage.finish()")
    process = subprocess.Popen(
        [sys.executable, "-m", "katlab.cli", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(project / "outputs/demo" / SECOND / "checkpoints/reached")
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_kernel_and_leaves_a_named_state(project, number):
    process = start(project)
    folder = project / "outputs/demo" / SECOND
    kernel = runs.read(folder)["pid"]
    assert kernel != process.pid
    process.send_signal(number)
    process.send_signal(number)  # as `timeout` and SLURM do: the process and its group
    shown, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"interrupted by {number.name}" in shown and "Traceback" not in shown
    assert states(project) == {FIRST: "done", SECOND: "interrupted"}
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    assert any(cell.get("execution_count") for cell in executed.cells)
    assert not psutil.pid_exists(kernel)


def test_a_killed_run_has_died_and_continues(project, capfd):
    process = start(project)
    folder = project / "outputs/demo" / SECOND
    assert cli.main(["run"]) == 2
    assert "another process" in capfd.readouterr().err
    process.kill()
    process.communicate()
    (folder / "checkpoints/mark").touch()
    wait_until_dead(runs.read(folder)["pid"])
    assert states(project)[SECOND] == "died"
    assert cli.main(["ls"]) == 0
    assert "died" in capfd.readouterr().out
    assert not (folder / "notebook.ipynb").exists()  # never half written
    first = started(project)[FIRST]
    # The same work continues (the checkpoints stay); other work begins with an empty folder.
    (folder / "checkpoints/reached").unlink()
    again = subprocess.Popen([sys.executable, "-m", "katlab.cli", "run"])
    wait_for(folder / "checkpoints/reached")
    assert (folder / "checkpoints/mark").is_file()
    again.terminate()
    again.wait(timeout=300)
    edit(project, SECOND, "stage.finish()")
    assert cli.main(["run", "--from", "2", "--force"]) == 0
    assert not (folder / "checkpoints/mark").exists()
    assert (folder.with_name(f"{SECOND}@1") / "checkpoints/mark").is_file()
    assert started(project)[FIRST] == first
    assert {states(project)[name] for name in (FIRST, SECOND, LAST)} == {"done"}


def wait_until_dead(pid: int) -> None:
    until = time.monotonic() + 120
    while psutil.pid_exists(pid):
        assert time.monotonic() < until, "the kernel outlived its runner"
        time.sleep(0.1)


def test_one_runner_a_folder(tmp_path):
    code = "from pathlib import Path; from katlab.lab.lock import run_lock; import sys\n"
    code += f"with run_lock(Path({str(tmp_path)!r})): pass"
    with run_lock(tmp_path):
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode == 1 and "another process" in other.stderr
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_papermill_collapses_streams_and_only_warns_of_unknown_names(project):
    """What the engine relies on in papermill and nbclient; an upgrade must not change it."""
    edit(
        project,
        FIRST,
        "for i in range(50):\n    print(f'\\rstep {i}', end='', flush=True)\nspam = 1",
    )
    edit_cells = nbformat.read(project / "notebooks" / f"{FIRST}.ipynb", as_version=4)
    edit_cells.cells.append(nbformat.v4.new_code_cell("stage.finish()"))
    nbformat.write(edit_cells, project / "notebooks" / f"{FIRST}.ipynb")
    assert cli.main(["stage", "1"]) == 0
    done = nbformat.read(project / "outputs/demo" / FIRST / "notebook.ipynb", as_version=4)
    [spam] = [cell for cell in done.cells if "range(50)" in cell.source]
    assert [output.text for output in spam.outputs] == ["step 49"]
    source = project / "notebooks" / f"{FIRST}.ipynb"
    prepared = papermill.execute_notebook(
        str(source), None, {"sead": 1}, prepare_only=True, kernel_name="python3"
    )
    injected = [c.source for c in prepared.cells if "injected-parameters" in c.metadata.tags]
    assert injected == ["# Parameters\nsead = 1\n"]


def test_outputs_never_lie_beside_the_notebook(project, monkeypatch):
    monkeypatch.delenv("KATLAB_ROOT")
    monkeypatch.chdir(project / "notebooks")
    assert cli.main(["stage", "8"]) == 0
    assert (project / "outputs/demo" / LAST / "report.html").is_file()
    assert not (project / "notebooks/outputs").exists()


def test_kernels_get_threads_quiet_libraries_and_no_tracker(project, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "1")
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HUB_DISABLE_TELEMETRY", "KATLAB_ROOT"]
    edit(project, LAST, f"import os\nstage.record(**{{k: os.environ[k] for k in {names}}})",
         "stage.record(report_to=stage.report_to)\nstage.finish()")  # fmt: skip
    assert cli.main(["stage", "8", "-p", "report_to=none"]) == 0
    headline = runs.read(project / "outputs/demo" / LAST)["headline"]
    assert headline == {
        "OMP_NUM_THREADS": str(psutil.cpu_count(logical=False) or os.cpu_count()),
        "MKL_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "KATLAB_ROOT": str(project),
        "report_to": "none",
    }


def test_libraries_are_quiet_before_the_first_cell(project):
    """bitsandbytes logs a warning while it is imported; no page should open with it."""
    speak = 'import logging\nlogging.getLogger("bitsandbytes.backends").warning("no CUDA here")'
    edit(project, LAST, speak, "stage.finish()")
    path = project / "notebooks" / f"{LAST}.ipynb"
    book = nbformat.read(path, as_version=4)
    book.cells.insert(0, book.cells.pop(4))  # before lab.begin
    nbformat.write(book, path)
    assert cli.main(["stage", "8"]) == 0
    done = nbformat.read(project / "outputs/demo" / LAST / "notebook.ipynb", as_version=4)
    assert done.cells[0].source == speak and done.cells[0].outputs == []
