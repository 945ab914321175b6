"""What `katlab run` prints: one line per stage that lives while it runs, then its verdicts.

On a terminal the line is rewritten; elsewhere it is printed again every five seconds if it
changed, every thirty if it did not. The figures come from the stage's progress.json. Lines and
tables fit the terminal, 80 columns where there is none; rich colours them on a terminal alone.

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
from rich.table import Column, Table
from rich.text import Text

from katlab.lab import runs
from katlab.lab.claims import KINDS
from katlab.lab.progress import line, seconds
from katlab.lab.words import headline

MARKS = {True: "✓", False: "✗", None: "–"}
STYLES = {"held": "green", "not held": "red", "not applicable": "bright_black"}
STYLES |= {"✓": "green", "✗": "red", "–": "bright_black", "done": "green", "failed": "red"}
STYLES |= {"died": "red", "interrupted": "yellow", "running": "cyan"}
STYLES |= {"▸": "cyan", "=": "bright_black", "!": "yellow"}
LEGEND = "✓ held   ✗ not held   – not applicable"


class Console:
    """The terminal side of one pipeline; a quiet one tells errors and the last path alone."""

    def __init__(self, folder: Path, names: Sequence[str], quiet: bool = False):
        self.folder, self.names, self.quiet = folder, list(names), quiet
        self.executed: list[str] = []
        self.begun = time.monotonic()
        self.width = max(map(len, names))
        self.counted = plural(len(names), "stage")
        self._say(f"run {folder.name}: {self.counted} into {folder}")

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Show the progress of the stage in `folder` until the block ends."""
        begun = time.monotonic()
        self.executed.append(folder.name)
        if self.quiet:
            yield
            return

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

    def unchanged(
        self, name: str, why: str = "unchanged, skipped", kept: Path | None = None
    ) -> None:
        """The stage is done already with the same inputs; `kept` if other work gave way."""
        self._line("=", name, why)
        if kept:
            self.kept(kept)

    def kept(self, folder: Path) -> None:
        """An earlier attempt gave way and lies in `folder`."""
        self._line(
            "=", folder.name.partition("@")[0], f"the earlier attempt is kept as {folder.name}"
        )

    def done(self, folder: Path) -> None:
        """The stage is done; its duration, verdict count and last headline figures."""
        record = runs.read(folder)
        held, asked = counted(verdicts(folder))
        claims = [f"{held} of {plural(asked, 'claim')} held"] if asked else []
        figures = headline(record).split(" · ") if record["headline"] else []
        text = _fitting([seconds(record["seconds"]), *claims, *figures], self.width + 4)
        self._line("✓", folder.name, text)

    def failed(self, folder: Path, message: str, user: bool) -> None:
        """The stage failed; where to read on unless the message says it all."""
        self._line("✗", folder.name, message, error=True)
        if not user:
            self._line(" ", "", f"read on in {folder / 'report.html'}", error=True)

    def stopped(self, name: str, signal: str) -> None:
        """A signal stopped the stage."""
        told = f"interrupted by {signal}; the same command continues here"
        self._line("!", name, told, error=True)

    def end(self, index: Path) -> None:
        """The totals: the verdicts of what was executed, the time, and where the page is."""
        every = {name: verdicts(self.folder / name) for name in self.names}
        every = {name: [r for r in rows if r["kind"] != "fact"] for name, rows in every.items()}
        done = [(name, row) for name in self.executed for row in every[name]]
        if done:
            self._say(f"\n{claim_table(done)}\n\n{LEGEND}")
        took = f"{self.counted} in {seconds(time.monotonic() - self.begun)}"
        self._say(f"\n{took}{'' if self.executed else ' · nothing was to be done'}")
        for kind, name in KINDS.items():
            held, asked = counted(r for rows in every.values() for r in rows if r["kind"] == kind)
            if asked:
                self._say(f"{name}: {held} of {asked} held")
        self._say(str(index))

    def _watch(self, folder: Path, over: threading.Event) -> None:
        begun = printed = time.monotonic()
        last = ""
        while not over.wait(0.5):
            text = progress(folder)
            if time.monotonic() - printed >= (5 if text != last else 30):
                clock = seconds(time.monotonic() - begun)
                told = _fitting([clock, *text.split(" · ")], self.width + 4)
                self._line("▸", folder.name, told)
                last, printed = text, time.monotonic()

    def _line(self, mark: str, name: str, text: str, error: bool = False) -> None:
        line = f"{mark} {name:{self.width}}  {text}"
        if error and self.quiet:
            print(line.strip(), file=sys.stderr)
        if not self.quiet:  # soft_wrap: a command in a sentence stays one line, to be pasted
            shown = Text.assemble((mark, STYLES.get(mark, "")), line[1:])
            rich.console.Console().print(shown, soft_wrap=True)
            sys.stdout.flush()

    def _say(self, text: str) -> None:
        if not self.quiet:
            _print(text)


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


def counted(rows: Iterable[dict]) -> tuple[int, int]:
    """(how many verdict rows held, how many were tested)."""
    asked = [row["held"] for row in rows if row["held"] is not None]
    return sum(asked), len(asked)


def plural(count: int, noun: str) -> str:
    """'1 stage', '2 stages'."""
    return f"{count} {noun}{'s' * (count != 1)}"


def claim_table(rows: Iterable[tuple[str, dict]]) -> str:
    """(stage, verdict row) pairs as a table, the mark first."""
    shown = [
        (MARKS[row["held"]], name[:2], row["claim"], row["measured"], row["reported"])
        for name, row in rows
    ]
    head = ("", "", Column("claim", ratio=5), Column("measured", ratio=3))
    return table((*head, Column("reported", ratio=3)), shown)


def table(head: Sequence[str | Column], rows: Iterable[Sequence[str | Text]]) -> str:
    """Rows as a table that wraps at the width of the terminal; no column stands cut off."""
    columns = [one if isinstance(one, Column) else Column(one, overflow="fold") for one in head]
    made = Table(
        *columns, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, pad_edge=False
    )
    made.expand = any(isinstance(column, Column) and column.ratio for column in head)
    for row in rows:
        made.add_row(*(_cell(cell) for cell in row))
    out = rich.console.Console()
    with out.capture() as captured:
        out.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _cell(cell: str | Text) -> Text:
    """Text as it stands: brackets in a claim or a setting are no markup."""
    return cell if isinstance(cell, Text) else Text(cell, style=STYLES.get(cell, ""))


def _fitting(parts: Sequence[str], taken: int) -> str:
    """As many parts as fit the terminal behind `taken` columns; the first in any case."""
    room = rich.console.Console().width - taken
    shown = parts[0]
    for part in parts[1:]:
        if len(shown) + 3 + len(part) > room:
            break
        shown += f" · {part}"
    return shown


def _print(text: str) -> None:
    print(text, flush=True)
