"""Runs on disk: outputs/<run>/<stage>/ is the only database, and StageRun is its one writer.

A stage folder holds run.json (state, parameters, versions, headline figures), result.json (the
figures of finished work), metrics.jsonl, figures/, verdict.json, checkpoints/ and whatever the
stage makes. States: running, done, failed, interrupted; a folder that says running while its
process is gone has died. Every file is replaced atomically, metrics.jsonl is appended line by
line, and under torchrun only rank 0 writes.

Usage:  stage = StageRun.create(outputs, "demo", "04_cold_start");  StageRun.open(stage.dir)
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from katlab.lab import profiles, records, stages, training
from katlab.lab.claims import Claim
from katlab.lab.progress import Bar
from katlab.lab.provenance import git, now, peak_memory_mib, since, versions
from katlab.lab.records import read, stage_folders, stale, state
from katlab.lab.rows import Journal, read_jsonl, replace, scalar, write_jsonl
from katlab.lab.settings import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from transformers import TrainerCallback

__all__ = ["StageRun", "read", "replace", "stage_folders", "stale", "state"]
# What run.json says of the process that has the folder open, not of the work in it.
OPENED = ("state", "parameters", "pid", "host", "command", "opened", "error")


class StageRun:
    """One stage of one run: its settings, its folder, and what it writes there."""

    def __init__(self, folder: Path, parameters: dict):
        self.dir = folder
        self.name = folder.name.partition("@")[0]  # an earlier attempt is the same stage
        self.parameters = parameters
        self.profile: str = parameters["profile"]
        self.run: str = parameters["run"]
        self.seed: int = parameters["seed"]
        self.overrides: dict = parameters["overrides"]
        self.report_to: str = parameters["report_to"]
        self.config: Any = profiles.load(self.profile, self.overrides)
        self.begun = self.config.model_dump()  # what the fingerprint knows; see `lab.work`
        self.settings: Any = vars(self.config).get(profiles.section(self.name), Section())
        self.checkpoints = folder / "checkpoints"
        self.figures = folder / "figures"
        self.shows = False  # set by lab.begin in a notebook: display figures, tables, progress
        self.writes = int(os.environ.get("RANK", "0")) == 0
        self._bar: Bar | None = None
        self._step = 0
        self._drawn: set[str] = set()
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
        """Begin (or go on with) a stage in root/run/name; `root` is the folder of runs.

        `extra` joins run.json. Under the `fingerprint` that run.json has already, the figures
        found so far stay, and so does all that it says of work that is finished.
        """
        records.check_name(run)
        parameters = {
            "profile": profile,
            "run": run,
            "seed": seed,
            "overrides": overrides or {},
            "report_to": report_to,
        }
        stage = cls(Path(root) / run / name, parameters)
        moment = now()
        record = {
            "id": f"{run}/{name}",
            "state": "running",
            "parameters": parameters,
            "settings": stage.settings.model_dump(),
            "seed": seed,
            "upstream": {},
            "page": "",  # fingerprint of notebook.ipynb, set by the runner that executed it
            "headline": {},
            "pid": os.getpid(),
            "host": platform.node(),
            "command": " ".join(sys.argv),
            "started": moment,
            "opened": moment,
            "error": "",
            "reused": False,
            "git": git(),
            "versions": versions(),
            **extra,
        }
        before = read(stage.dir) if (stage.dir / "run.json").is_file() else {}
        if "fingerprint" in extra and before.get("fingerprint") == extra["fingerprint"]:
            record["headline"] = before["headline"]
            finished = state(before) == "done" and not stages.named(name).always
            if stage.result() is not None or finished:
                opened = {key: record[key] for key in OPENED if key in record}
                record = before | opened | {"reused": True}
        stage.write("run.json", record)
        return stage

    @classmethod
    def open(cls, folder: str | Path) -> StageRun:
        """A stage that exists, as another process (a launcher, a test) sees it."""
        return cls(Path(folder).resolve(), read(Path(folder))["parameters"])

    def variant(self, new: str, **settings: Any) -> StageRun:
        """This stage in a run `new`, a fork of this one with other settings: it trains anew there.

        `omega=0.9` is a key of the stage's own section, `**{"lora.r": 4}` of another; settings
        changed by hand in this notebook count as well. Raises UserError for a mistake in a name
        or a value, for a run `new` of other settings, and if an upstream stage is to be run first.
        """
        from katlab.lab import variants

        return variants.begin(self, new, settings)

    def result(self) -> dict[str, float] | None:
        """The figures of this stage's work, or None while it is not finished."""
        return records.result(self.dir)

    def conclude(self, figures: dict[str, float]) -> dict[str, float]:
        """The work is finished: keep its figures (JSON scalars) as result.json and headline."""
        figures = json.loads(json.dumps(figures, default=scalar))
        self.record(**figures)
        made = {"fingerprint": read(self.dir).get("fingerprint"), "figures": figures}
        self.write("result.json", made)
        return figures

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
        """The folder of a stage of this run whose work is finished; UserError says what to run."""
        return records.upstream(self.dir, name, self.parameters)

    def log(self, **metrics: Any) -> None:
        """Append one line to metrics.jsonl: `step` (counted on if not given) and the figures."""
        self._step = int(metrics.pop("step", self._step + 1))
        if not self.writes:
            return
        row = {"step": self._step, **metrics}
        with (self.dir / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, default=scalar) + "\n")
        if self._bar is not None:
            self._bar.metrics(json.loads(json.dumps(metrics, default=scalar)), self._step)

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
            record["headline"].update(json.loads(json.dumps(headline, default=scalar)))
            self.write("run.json", record)

    def bar(
        self, total: int, what: str, show: Mapping[str, str] | None = None, done: int = 0
    ) -> Bar:
        """Progress that the caller moves: `bar.to(step)`, `bar.close()`; `show` as in `Bar`."""
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
        self, what: str = "training", show: Mapping[str, str] | None = None, phase: str = "train"
    ) -> TrainerCallback:
        """A transformers TrainerCallback: metrics.jsonl and live progress.

        `show` labels the logged keys worth a line and a curve; `phase` marks the rows of
        metrics.jsonl when a stage trains more than once.
        """
        return training.trainer_callback(self, what, show, phase)

    def figure(self, figure: Figure, name: str, takeaway: str, hero: bool = False) -> None:
        """Save a matplotlib figure (PNG, SVG, its data as CSV) and show it with its takeaway.

        The `hero` is the one figure that the run's index shows first.
        """
        from katlab.lab import display

        display.figure(self, figure, name, takeaway, hero)
        self._drawn.add(name)

    def table(self, content: Any, caption: str, **formats: str) -> None:
        """Show a frame, a series or a dict of this stage's figures as a captioned table.

        Numbers are rounded for people, or take the format given for their column (`formats`, as
        accuracy=".1%"; `**{"": ".1%"}` for all); a dict's keys get their labels and units.
        """
        from katlab.lab import display

        display.table(self, content, caption, formats)

    def story(self, *sentences: str) -> None:
        """What the run's index says of its result; shown here too."""
        from katlab.lab import display

        self.write("story.json", sentences)
        if self.shows:
            display.show(display.html("story", sentences=sentences))

    def verdict(self, rows: Sequence[Claim]) -> None:
        """Save the rows as verdict.json and show them: the claims, then the facts."""
        from katlab.lab import display

        display.verdict(self, rows)

    def finish(self) -> None:
        """The stage is done; figures of an earlier version of its notebook leave the index."""
        index = self.figures / "index.json"
        if index.is_file():
            shown = json.loads(index.read_text(encoding="utf-8"))
            kept = {name: text for name, text in shown.items() if name in self._drawn}
            self.write("figures/index.json", kept)
        self.close("done")
        if self.shows and self.writes and "KATLAB_RUNNER" not in os.environ:
            from katlab.lab import byhand

            byhand.finished(self)

    def close(self, state: str, error: str = "") -> None:
        """Write the last state of this attempt: done, failed or interrupted."""
        if not self.writes:
            return
        (self.dir / "progress.json").unlink(missing_ok=True)
        record = read(self.dir)
        record.update(state=state, error=error)
        if not (record.get("reused") and "seconds" in record):  # else they are the work's
            record["ended"] = now()
            record["seconds"] = round(since(record["started"]), 1)
            record["peak_memory_mib"] = peak_memory_mib()
        self.write("run.json", record)

    def write(self, name: str, content: object) -> None:
        """Replace a JSON file of the folder atomically (rank 0 only)."""
        self._replace(name, json.dumps(content, indent=1, default=scalar) + "\n")

    def _replace(self, name: str, text: str) -> None:
        if self.writes:
            replace(self.dir / name, text)
