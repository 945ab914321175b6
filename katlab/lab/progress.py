"""Progress of a stage: a small file for the console; in a notebook one line, and live curves.

The stage writes progress.json (atomically, at most twice a second); the runner reads it. A notebook
shows the same line, and below it a curve for each figure that is to be shown, as one output that is
updated through a display id: no widgets, no script, and nothing of it on a page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from katlab.lab.runs import StageRun

# Shown first when logged; the loss of an RL step reads 0 and says nothing, so it comes last.
TELLING = ("think_on", "accuracy", "reward", "format", "length", "tokens", "kl", "loss")
MOST_POINTS = 200  # of a curve
QUIET = ("runtime", "per_second", "flos", "epoch", "learning_rate", "grad_norm", "step", "elapsed")


def telling(
    metrics: Mapping[str, Any], show: Mapping[str, str] | None = None, most: int = 4
) -> dict:
    """The few numbers worth a line: those that `show` labels, else the most telling ones."""
    numbers = {k: v for k, v in metrics.items() if isinstance(v, int | float)}
    if show:
        return {label: numbers[key] for key, label in show.items() if key in numbers}
    ranked = [k for word in TELLING for k in numbers if word in k and not k.endswith("/std")]
    rest = [k for k in numbers if not any(word in k for word in QUIET)]
    return {key: numbers[key] for key in list(dict.fromkeys(ranked + rest))[:most]}


def seconds(value: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    value = round(value)
    if value < 60:
        return f"{value} s"
    if value < 3600:
        return f"{value // 60} min {value % 60:02d} s"
    return f"{value // 3600} h {value % 3600 // 60:02d} min"


def number(value: object) -> str:
    """A number for people: 1,234, 0.873, 1.2e-05, – for one that is missing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "–" if math.isnan(value) else str(value)
    if value == int(value) and abs(value) < 2**53:
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def line(record: Mapping[str, Any]) -> str:
    """One progress record as text: what, step k/n, time left, the stage's own metrics."""
    parts = [str(record["what"])]
    if record["total"]:
        parts.append(f"step {record['step']}/{record['total']}")
        if record["left"] is not None and record["step"] < record["total"]:
            parts.append(f"{seconds(record['left'])} left")
    parts += [f"{key} {number(value)}" for key, value in record["metrics"].items()]
    return " · ".join(parts)


def curve(points: list[tuple[int, float]], total: int) -> dict[str, str]:
    """A curve in a box of 100 x 100, over steps 0 to `total`: its points, lowest, highest, last."""
    points = points[:: -1 - len(points) // MOST_POINTS][::-1]  # the last is always there
    values = [value for _, value in points]
    low, high = min(values), max(values)
    height = (high - low) or 1.0
    drawn = [
        (100 * step / max(total, 1), 100 - 100 * (value - low) / height) for step, value in points
    ]
    return {
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn),
        "low": number(low),
        "high": number(high),
        "last": number(values[-1]),
    }


class Bar:
    """One piece of work of a stage: `to(step)` moves it, `metrics(...)` gives it figures.

    `show` are the figures to show, logged name to label; in a notebook each has a curve.
    """

    def __init__(
        self,
        stage: StageRun,
        total: int,
        what: str,
        show: Mapping[str, str] | None = None,
        done: int = 0,
    ):
        self.stage, self.total, self.what, self.show = stage, total, what, show or {}
        self.step = self.first = done
        self.values: dict[str, object] = {}
        self.curves: dict[str, list[tuple[int, float]]] = {}  # (step, value) of each label
        self.started = time.monotonic()
        self.written = 0.0
        self.handle = None
        self._write()

    def to(self, step: int) -> None:
        """The work has reached `step`."""
        self.step = step
        if time.monotonic() - self.written > 0.5:
            self._write()

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Figures to show beside the step they were logged at; shown with the next write."""
        self.values = (
            self.values | telling(values, self.show)
            if self.show
            else telling(self.values | dict(values))
        )
        for key, label in self.show.items():
            if isinstance(value := values.get(key), int | float) and math.isfinite(value):
                self.curves.setdefault(label, []).append((step, value))

    def close(self) -> None:
        """The work is done; the line stays with its duration and last figures."""
        self._write(closed=True)

    def record(self) -> dict:
        """What progress.json holds."""
        spent = time.monotonic() - self.started
        rate = (self.step - self.first) / spent if spent > 0 else 0.0
        left = round((self.total - self.step) / rate, 1) if rate > 0 else None
        return {
            "what": self.what,
            "step": self.step,
            "total": self.total,
            "spent": round(spent, 1),
            "left": left,
            "metrics": self.values,
        }

    def _write(self, closed: bool = False) -> None:
        self.written = time.monotonic()
        record = self.record()
        self.stage.write("progress.json", record)
        if self.stage.shows:
            self._display(record, closed)

    def _display(self, record: dict, closed: bool) -> None:
        import IPython.display

        from katlab.lab import display

        text = line(record) + (f" · took {seconds(record['spent'])}" if closed else "")
        share = round(100 * record["step"] / record["total"]) if record["total"] else 100
        curves = {name: curve(points, self.total) for name, points in self.curves.items()}
        page = display.html("progress", text=text, share=share, curves=curves, total=self.total)
        shown = IPython.display.HTML(page)
        if self.handle is None:
            self.handle = IPython.display.display(shown, display_id=True)
        else:
            self.handle.update(shown)
