"""The page of a stage whose notebook is run by hand: drawn as soon as that notebook is saved.

A kernel does not see what the other cells show, and cannot ask JupyterLab to save. So
`stage.finish()` shows a line that carries the moment, and a thread waits for a saved file with that
line in it: it holds the outputs of this very run. `katlab report RUN` looks for it as well.

Usage:  byhand.finished(stage);  byhand.collect(outputs / "demo" / "05_step_srpo")
"""

import json
import os
import threading
import time
from pathlib import Path

from katlab.lab import display, fingerprint, records, report, stages
from katlab.lab.provenance import now
from katlab.lab.rows import replace
from katlab.lab.runs import StageRun

EVERY = 1.0  # seconds between two looks at the file


def finished(stage: StageRun) -> None:
    """Say in the notebook how the stage's page comes about, and wait for it in the background."""
    import IPython.display

    path, moment = _notebook(stage.name), now()
    record = records.read(stage.dir)
    stage.write("run.json", record | {"notebook": str(path), "finished": moment})
    page = os.path.relpath(stage.dir / "report.html", path.parent)
    values = {"moment": moment, "page": page, "run": stage.run}
    line = IPython.display.HTML(display.html("finished", drawn=False, **values))
    handle = IPython.display.display(line, display_id=True)

    def wait() -> None:
        seen = path.stat().st_mtime_ns if path.is_file() else 0
        while records.read(stage.dir).get("finished") == moment:
            time.sleep(EVERY)
            if path.is_file() and path.stat().st_mtime_ns != seen:
                seen = path.stat().st_mtime_ns
                if collect(stage.dir):
                    report.index(stage.dir.parent)
                    drawn = display.html("finished", drawn=True, **values)
                    handle.update(IPython.display.HTML(drawn))

    threading.Thread(target=wait, daemon=True).start()


def collect(folder: Path) -> bool:
    """Take over the saved notebook of a stage that was finished by hand and draw its page.

    False where there is none, or where it was not saved since; then nothing is written.
    """
    record = records.read(folder)
    path, moment = Path(record.get("notebook", "")), record.get("finished", "")
    text = path.read_text(encoding="utf-8") if moment and path.is_file() else ""
    if not moment or moment not in text:
        return False
    try:
        book = json.loads(text)
    except ValueError:  # it is being written
        return False
    for cell in book["cells"]:
        shown = cell.get("outputs", [])
        cell["outputs"] = [output for output in shown if moment not in json.dumps(output)]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    replace(folder / "notebook.ipynb", json.dumps(book, indent=1) + "\n")
    report.stage(folder)
    del record["finished"]
    if path == stages.root() / "notebooks" / f"{folder.name}.ipynb":  # else the launcher draws anew
        values, work = record["parameters"], record["fingerprint"]
        record["page"] = fingerprint.page(folder.name, values, work)
    replace(folder / "run.json", json.dumps(record, indent=1) + "\n")
    return True


def _notebook(name: str) -> Path:
    """The file of the notebook that runs here: as Jupyter or VS Code tell, else the checkout's."""
    from IPython import get_ipython

    told = [os.environ.get("JPY_SESSION_NAME", "")]
    told.append(get_ipython().user_ns.get("__vsc_ipynb_file__", ""))
    paths = (Path(text).resolve() for text in told if text.endswith(".ipynb"))
    return next((path for path in paths if path.is_file()), stages.notebook(name))
