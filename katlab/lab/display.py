"""What a stage shows: the run card, figures with takeaways, the verdict table.

Everything shown is plain HTML and PNG, which Jupyter, papermill, nbconvert and GitHub keep.

Usage:  display.figure(stage, figure, "loss", "It falls.")
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path

from katlab import UserError
from katlab.lab import runs
from katlab.lab.progress import number
from katlab.lab.runs import StageRun

HELD = {True: "held", False: "not held", None: "not applicable"}
COLOURS = {True: "#15803d", False: "#b91c1c", None: "#64748b"}
STYLE = Path(__file__).with_name("house.mplstyle")
CELL = "padding:6px 12px;border-bottom:1px solid #e2e8f0;text-align:left;vertical-align:top"


def figure(stage: StageRun, figure, name: str, takeaway: str) -> None:
    """See `StageRun.figure`; the figure must have a title and the takeaway must be a sentence."""
    titles = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
    if not any(titles):
        raise UserError(f"Figure '{name}' has no title; give one axes.set_title or a suptitle.")
    if not takeaway.strip().endswith((".", "!", "?")):
        raise UserError(f"The takeaway of figure '{name}' must be one sentence with a full stop.")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, bbox_inches="tight")
    import matplotlib.pyplot as plt

    plt.close(figure)
    if stage.writes:
        (stage.figures / f"{name}.png").write_bytes(image.getvalue())
        index = stage.figures / "index.json"
        shown = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
        title = figure.get_suptitle() or next(filter(None, titles))
        stage.write("figures/index.json", shown | {name: {"title": title, "takeaway": takeaway}})
    if stage.shows:
        data = base64.b64encode(image.getvalue()).decode()
        show(
            f'<figure style="margin:8px 0 20px"><img alt="{html.escape(takeaway)}" '
            f'style="max-width:100%;height:auto" src="data:image/png;base64,{data}">'
            f'<figcaption style="font-style:italic;color:#334155;margin-top:6px">'
            f"{html.escape(takeaway)}</figcaption></figure>"
        )


def verdict(stage: StageRun, rows: Sequence[tuple[str, object, object, bool | None]]) -> None:
    """See `StageRun.verdict`."""
    shown = [
        {
            "claim": claim,
            "reported": number(reported),
            "measured": number(measured),
            "held": None if held is None else bool(held),
        }
        for claim, reported, measured, held in rows
    ]
    stage.write("verdict.json", shown)
    if stage.shows:
        show(verdict_table(shown))


def verdict_table(rows: Sequence[dict], lead: str = "") -> str:
    """The verdict rows as an HTML table; with `lead`, the rows' own key of that name goes first."""
    keys = ([lead] if lead else []) + ["claim", "reported", "measured"]
    head = "".join(f'<th style="{CELL}">{key}</th>' for key in [*keys, "verdict"])
    body = ""
    for row in rows:
        cells = ""
        for key in keys:
            label = f' data-label="{key}:"' if key in ("reported", "measured") else ""
            text = row[key] if key == lead else html.escape(str(row[key]))
            cells += f'<td style="{CELL}"{label}>{text}</td>'
        colour, word = COLOURS[row["held"]], HELD[row["held"]]
        body += (
            f'<tr>{cells}<td style="{CELL};white-space:nowrap;font-weight:600;color:{colour}">'
            f"{word}</td></tr>"
        )
    return (
        '<div style="overflow-x:auto"><table class="kat-table" style="border-collapse:collapse;'
        f'width:100%;margin:8px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def run_card(stage: StageRun) -> str:
    """What this run is, as a small HTML table."""
    record = runs.read(stage.dir)
    git = record["git"]
    settings = ", ".join(f"{k} = {v}" for k, v in record["settings"].items())
    facts = {
        "stage": stage.name,
        "run": f"{stage.run} · profile {stage.profile} · seed {stage.seed}",
        "overrides": ", ".join(f"{k} = {v}" for k, v in stage.overrides.items()),
        "settings": settings,
        "upstream": ", ".join(record["upstream"]),
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
        "commit": git and git["sha"][:12] + (" with local changes" if git["changed"] else ""),
    }
    rows = "".join(
        f'<tr><th style="{CELL};white-space:nowrap;color:#64748b">{key}</th>'
        f'<td style="{CELL}">{html.escape(value)}</td></tr>'
        for key, value in facts.items()
        if value
    )
    return (
        '<div style="overflow-x:auto"><table class="kat-card" style="border-collapse:collapse;'
        f'font-size:13px;margin:8px 0">{rows}</table></div>'
    )


def show(content: str) -> None:
    """Display HTML in the notebook."""
    from IPython.display import HTML, display

    display(HTML(content))
