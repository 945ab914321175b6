"""What `katlab run` prints: a line a stage that lives while it runs, then every verdict.

On a terminal the line is rewritten; elsewhere it is printed again every five seconds if it
changed, every thirty if it did not. The figures come from the stage's progress.json.

Usage:  with console.watching(folder): engine.execute(...)
"""

import json
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from katlab.lab import runs
from katlab.lab.display import HELD
from katlab.lab.progress import headline, line, seconds


class Console:
    """The terminal side of one pipeline."""

    def __init__(self, folder: Path, names: Sequence[str]):
        self.folder, self.names = folder, list(names)
        self.live = sys.stdout.isatty()
        self.begun = time.monotonic()
        self.width = max(map(len, names))
        _print(f"run {folder.name}: {len(names)} stages into {folder}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Show the progress of the stage in `folder` until the block ends."""
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
        """The stage is done; its duration, verdict count and first headline figures."""
        record = runs.read(folder)
        rows = verdicts(folder)
        parts = [seconds(record["seconds"])]
        asked = [row for row in rows if row["held"] is not None]
        if asked:
            parts.append(f"{sum(row['held'] for row in asked)} of {len(asked)} claims held")
        self._line("✓", folder.name, " · ".join(filter(None, [*parts, headline(record)])))

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
        rows = [(name, row) for name in self.names for row in verdicts(self.folder / name)]
        if rows:
            _print("")
            _print(table(rows))
        _print(f"\n{len(self.names)} stages in {seconds(time.monotonic() - self.begun)}")
        _print(str(index))

    def _watch(self, folder: Path, over: threading.Event) -> None:
        begun = printed = time.monotonic()
        last = ""
        while not over.wait(0.5):
            text = progress(folder)
            clock = seconds(time.monotonic() - begun)
            if self.live:
                room = shutil.get_terminal_size().columns - 1
                shown = f"▸ {folder.name:{self.width}}  {clock} · {text}"
                sys.stdout.write(f"\r{shown[:room]:{room}}")
                sys.stdout.flush()
            elif time.monotonic() - printed >= (5 if text != last else 30):
                self._line("▸", folder.name, f"{clock} · {text}")
                last, printed = text, time.monotonic()

    def _line(self, mark: str, name: str, text: str) -> None:
        if self.live:
            sys.stdout.write("\r\x1b[2K")
        _print(f"{mark} {name:{self.width}}  {text}")


def progress(folder: Path) -> str:
    """The progress line of a stage; 'starting' before it has any, 'finishing' after the last."""
    try:
        return line(json.loads((folder / "progress.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return "finishing" if runs.read(folder)["state"] == "done" else "starting"


def verdicts(folder: Path) -> list[dict]:
    """The verdict rows of a stage folder; none if it has no verdict."""
    path = folder / "verdict.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def table(rows: Sequence[tuple[str, dict]]) -> str:
    """(stage, verdict row) pairs as aligned text."""
    cells = [("stage", "claim", "reported", "measured", "verdict")]
    for name, row in rows:
        claim = textwrap.shorten(row["claim"], 60, placeholder="…")
        cells.append((name, claim, row["reported"], row["measured"], HELD[row["held"]]))
    widths = [max(len(row[i]) for row in cells) for i in range(5)]
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) for row in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _print(text: str) -> None:
    print(text, flush=True)
