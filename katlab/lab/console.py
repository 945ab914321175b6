"""What `katlab run` prints: one line per stage that lives while it runs, then every verdict.

On a terminal the line is rewritten; elsewhere it is printed again every five seconds if it
changed, every thirty if it did not. The figures come from the stage's progress.json.

Usage:  with console.watching(folder): engine.execute(...)
"""

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import rich.console
from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from katlab.lab import runs
from katlab.lab.display import HELD
from katlab.lab.progress import headline, line, seconds

STYLES = {"held": "green", "not held": "red", "not applicable": "bright_black"}
PIPE = 200  # columns of a table that goes to a file or a pipe


class Console:
    """The terminal side of one pipeline."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, list(names)
        self.begun = time.monotonic()
        self.width = max(map(len, names))
        self.counted = f"{len(names)} stage{'s' * (len(names) != 1)}"
        _print(f"run {folder.name}: {self.counted} into {folder}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Show the progress of the stage in `folder` until the block ends."""
        begun = time.monotonic()

        def live() -> Text:
            text = f"{seconds(time.monotonic() - begun)} · {progress(folder)}"
            shown = f"▸ {folder.name:{self.width}}  {text}"
            return Text(shown, no_wrap=True, overflow="ellipsis")

        if sys.stdout.isatty():
            with Live(get_renderable=live, refresh_per_second=2, transient=True):
                yield
            return
        over = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(folder, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def unchanged(self, name: str, why: str = "unchanged, skipped") -> None:
        """The stage is done already with the same inputs."""
        self._line("=", name, why)

    def done(self, folder: Path) -> None:
        """The stage is done; its duration, verdict count and last headline figures."""
        record = runs.read(folder)
        asked = [row["held"] for row in verdicts(folder) if row["held"] is not None]
        claims = f"{sum(asked)} of {len(asked)} claims held" if asked else ""
        parts = (seconds(record["seconds"]), claims, headline(record))
        self._line("✓", folder.name, " · ".join(filter(None, parts)))

    def failed(self, folder: Path, message: str, user: bool) -> None:
        """The stage failed; where to read on unless the message says it all."""
        self._line("✗", folder.name, message)
        if not user:
            _print(f"  {'':{self.width}}  read on in {folder / 'report.html'}")

    def stopped(self, name: str, signal: str) -> None:
        """A signal stopped the stage."""
        self._line("!", name, f"interrupted by {signal}; the same command continues here")

    def end(self, index: Path) -> None:
        """The totals: every verdict row of the run, the time, and where the page is."""
        rows = [
            (name[:2], row["claim"], row["reported"], row["measured"], HELD[row["held"]])
            for name in self.names
            for row in verdicts(self.folder / name)
            if row["kind"] != "fact"
        ]
        if rows:
            _print(f"\n{table(('', 'claim', 'reported', 'measured', 'verdict'), rows)}")
        _print(f"\n{self.counted} in {seconds(time.monotonic() - self.begun)}")
        _print(str(index))

    def _watch(self, folder: Path, over: threading.Event) -> None:
        begun = printed = time.monotonic()
        last = ""
        while not over.wait(0.5):
            text = progress(folder)
            if time.monotonic() - printed >= (5 if text != last else 30):
                clock = seconds(time.monotonic() - begun)
                self._line("▸", folder.name, f"{clock} · {text}")
                last, printed = text, time.monotonic()

    def _line(self, mark: str, name: str, text: str) -> None:
        _print(f"{mark} {name:{self.width}}  {text}")


def progress(folder: Path) -> str:
    """The progress line of a stage; 'starting' before it has any, 'finishing' after the last."""
    try:
        return line(json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return "finishing" if runs.read(folder)["state"] == "done" else "starting"


def verdicts(folder: Path) -> list[dict]:
    """The verdict rows of a stage folder, each with its `kind`; none if it has no verdict."""
    path = folder / "verdict.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return [{"kind": "report"} | row for row in rows]  # of a run older than kinds


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as a table that wraps at the width of the terminal, or of `PIPE` columns elsewhere."""
    made = Table(*head, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False)
    for row in rows:
        made.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    out = rich.console.Console(width=None if sys.stdout.isatty() else PIPE)
    with out.capture() as captured:
        out.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _print(text: str) -> None:
    print(text, flush=True)
