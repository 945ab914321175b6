"""Runs on disk: outputs/<run>/<stage>/ is the only database, and Stage is its one writer.

A stage folder holds run.json (state, parameters, versions, headline figures), metrics.jsonl,
figures/, verdict.json, checkpoints/ and whatever the stage makes. States: running, done, failed,
interrupted; a folder that says running while its process is gone has died. Every file is replaced
atomically, metrics.jsonl is appended line by line, and under torchrun only rank 0 writes.

Usage:  stage = StageRun.create(outputs, "demo", "04_cold_start");  StageRun.open(stage.dir)
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psutil

from katlab import UserError
from katlab.lab import profiles, training
from katlab.lab.progress import Bar
from katlab.lab.rows import Journal, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import TrainerCallback

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "papermill")


class StageRun:
    """One stage of one run: its settings, its folder, and what it writes there."""

    def __init__(self, folder: Path, parameters: dict):
        self.dir = folder
        self.name = folder.name
        self.parameters = parameters
        self.profile: str = parameters["profile"]
        self.run: str = parameters["run"]
        self.seed: int = parameters["seed"]
        self.overrides: dict = parameters["overrides"]
        self.report_to: str = parameters["report_to"]
        self.config = profiles.load(self.profile, self.overrides)
        self.settings = vars(self.config).get(profiles.section(self.name), SimpleNamespace())
        self.checkpoints = folder / "checkpoints"
        self.figures = folder / "figures"
        self.shows = False  # set by lab.begin in a notebook: display figures, tables, progress
        self.writes = int(os.environ.get("RANK", "0")) == 0
        self._bar: Bar | None = None
        self._step = 0
        for made in (self.checkpoints, self.figures):
            made.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(
        cls,
        root: str | Path,
        run: str,
        name: str,
        profile: str = "nano",
        seed: int = 0,
        overrides: dict | None = None,
        report_to: str = "none",
        **extra: object,
    ) -> StageRun:
        """Begin (or begin again) a stage in root/run/name; `root` is the folder of runs.

        `extra` joins run.json. Files of an earlier attempt stay; see `clear`.
        """
        parameters = {
            "profile": profile,
            "run": run,
            "seed": seed,
            "overrides": overrides or {},
            "report_to": report_to,
        }
        stage = cls(Path(root) / run / name, parameters)
        stage.write(
            "run.json",
            {
                "id": f"{run}/{name}",
                "state": "running",
                "parameters": parameters,
                "settings": json.loads(json.dumps(stage.settings, default=vars)),
                "seed": seed,
                "upstream": {},
                "headline": {},
                "pid": os.getpid(),
                "host": platform.node(),
                "command": " ".join(sys.argv),
                "started": now(),
                "git": _git(),
                "versions": versions(),
                **extra,
            },
        )
        return stage

    @classmethod
    def open(cls, folder: str | Path) -> StageRun:
        """A stage that exists, as another process (a launcher, a test) sees it."""
        return cls(Path(folder).resolve(), read(Path(folder))["parameters"])

    def clear(self) -> None:
        """Forget everything an earlier attempt with other inputs left in the folder."""
        clear(self.dir)
        for made in (self.checkpoints, self.figures):
            made.mkdir(parents=True, exist_ok=True)

    def kept(self, name: str, make: Callable[[], Iterable[dict]]) -> list[dict]:
        """The rows of folder/name (.jsonl): read if they are there, else made by rank 0.

        Other ranks wait for the file rather than in a collective, which would time out.
        """
        path = self.dir / name
        if self.writes and not path.is_file():
            write_jsonl(path, make())
        while not path.is_file():
            time.sleep(0.2)
        return read_jsonl(path)

    def journal(self, name: str) -> Journal:
        """Values of folder/name (.jsonl) kept as they come; see `rows.Journal`."""
        return Journal(self.dir / name, self.writes)

    def upstream(self, name: str) -> Path:
        """The folder of a finished stage of the same run; UserError names what to run."""
        folder = self.dir.parent / name
        record = read(folder) if (folder / "run.json").is_file() else {"state": "not run"}
        if record["state"] != "done":
            raise UserError(
                f"{self.name} needs {name}, which is {record['state']} in run '{self.run}'; "
                f"run: katlab stage {name[:2]} --profile {self.profile} --run {self.run}"
            )
        return folder

    def log(self, **metrics: object) -> None:
        """Append one line to metrics.jsonl: `step` (counted on if not given) and the figures."""
        self._step = int(metrics.pop("step", self._step + 1))
        if not self.writes:
            return
        row = {"step": self._step, **metrics}
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=_scalar) + "\n")
        if self._bar is not None:
            self._bar.metrics(json.loads(json.dumps(metrics, default=_scalar)))

    def metrics(self) -> list[dict]:
        """Every line of metrics.jsonl so far (a line cut by a kill is left out)."""
        path = self.dir / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget_after(self, step: int, phase: str) -> None:
        """Drop a phase's metrics beyond `step`: a resumed training will write them again."""
        rows = [r for r in self.metrics() if r.get("phase") != phase or r["step"] <= step]
        self._replace("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def record(self, **headline: object) -> None:
        """Put headline metrics (JSON scalars) into run.json."""
        if self.writes:
            record = read(self.dir)
            record["headline"].update(json.loads(json.dumps(headline, default=_scalar)))
            self.write("run.json", record)

    def bar(self, total: int, what: str, show: tuple[str, ...] = (), done: int = 0) -> Bar:
        """Progress that the caller moves: `bar.to(step)`, `bar.close()`."""
        self._bar = Bar(self, total, what, show, done)
        return self._bar

    def progress(self, work: Iterable | int, what: str) -> Iterator:
        """Iterate over `work` (or range(work)) with live progress."""
        items = range(work) if isinstance(work, int) else work
        total = len(items) if isinstance(items, Sequence) else 0
        bar = self.bar(total, what)
        for done, item in enumerate(items, start=1):
            yield item
            bar.to(done)
        bar.close()

    def callback(
        self, what: str = "training", show: tuple[str, ...] = (), phase: str = "train"
    ) -> TrainerCallback:
        """A transformers TrainerCallback: metrics.jsonl and live progress.

        `show` names the logged keys worth a line; `phase` marks the rows of metrics.jsonl when a
        stage trains more than once.
        """
        return training.trainer_callback(self, what, show, phase)

    def figure(self, figure: Figure, name: str, takeaway: str) -> None:
        """Save a matplotlib figure as figures/name.png and show it with its takeaway sentence."""
        from katlab.lab import display

        display.figure(self, figure, name, takeaway)

    def verdict(self, rows: Sequence[tuple[str, object, object, bool | None]]) -> None:
        """Save and show (claim, reported, measured, held) rows; held None = not applicable."""
        from katlab.lab import display

        display.verdict(self, rows)

    def finish(self) -> None:
        """The stage is done."""
        self.close("done")

    def close(self, state: str, error: str = "") -> None:
        """Write the last state of this attempt: done, failed or interrupted."""
        if not self.writes:
            return
        (self.dir / "progress.json").unlink(missing_ok=True)
        record = read(self.dir)
        record.update(state=state, ended=now(), error=error)
        record["seconds"] = round(_since(record["started"]), 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        record["peak_memory_mib"] = round(peak / (2**20 if sys.platform == "darwin" else 2**10))
        self.write("run.json", record)

    def write(self, name: str, content: object) -> None:
        """Replace a JSON file of the folder atomically (rank 0 only)."""
        self._replace(name, json.dumps(content, indent=1, default=_scalar) + "\n")

    def _replace(self, name: str, text: str) -> None:
        if self.writes:
            replace(self.dir / name, text)


def replace(path: Path, text: str) -> None:
    """Write a whole file so that a reader or a kill sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def clear(folder: Path) -> None:
    """Empty a stage folder, subfolders included."""
    import shutil

    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def read(folder: Path) -> dict:
    """run.json of a stage folder; UserError if there is none."""
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise UserError(f"There is no run.json in {folder}; begin the stage there first.")
    return json.loads(path.read_text(encoding="utf-8"))


def state(record: dict) -> str:
    """The state of a run.json; 'died' if it says running and its process is gone."""
    if record["state"] == "running" and not alive(record):
        return "died"
    return record["state"]


def alive(record: dict) -> bool:
    """Whether the process that wrote run.json still runs (on another host: taken to)."""
    if record["host"] != platform.node():
        return True
    if not psutil.pid_exists(record["pid"]):
        return False
    begun = datetime.fromisoformat(record["started"]).timestamp()
    try:
        process = psutil.Process(record["pid"])
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= begun + 1
    except psutil.NoSuchProcess:
        return False


def now() -> str:
    """Local time with its offset, ISO 8601."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that decide results (read, not imported)."""
    installed = {dist.name.lower() for dist in metadata.distributions()}
    found = {name: metadata.version(name) for name in LIBRARIES if name in installed}
    return {"python": platform.python_version(), **found}


def _git() -> dict[str, object]:
    """Commit and whether tracked files differ from it; empty outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent)]
    try:
        sha = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True)
    except FileNotFoundError:  # git itself is not installed
        return {}
    if sha.returncode:
        return {}
    changed = subprocess.run([*command, "diff", "--quiet", "HEAD"], capture_output=True)
    return {"sha": sha.stdout.strip(), "changed": changed.returncode != 0}


def _since(moment: str) -> float:
    return time.time() - datetime.fromisoformat(moment).timestamp()


def _scalar(value: object) -> object:
    """numpy and zero-dimensional torch values as JSON scalars, paths as text."""
    return str(value) if isinstance(value, Path) else value.item()
