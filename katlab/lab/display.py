"""What a stage shows: the run card, figures with takeaways, the verdict table.

Everything shown is plain HTML and PNG, which Jupyter, papermill, nbconvert and GitHub keep.

Usage:  display.figure(stage, figure, "loss", "It falls.")
"""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from katlab import UserError
from katlab.lab import profiles, runs
from katlab.lab.claims import KINDS, Claim
from katlab.lab.progress import number
from katlab.lab.runs import StageRun

HELD = {True: "held", False: "not held", None: "not applicable"}
COLOURS = {True: "#15803d", False: "#b91c1c", None: "#64748b"}
SHORT = 12  # characters; cells no longer than this stand side by side on a phone
NAME = re.compile(r"[a-z]+(_[a-z0-9]+)+")
STYLE = Path(__file__).with_name("house.mplstyle")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
# Colours of a verdict: the sheet of the page, or of the run card, has those for a dark ground.
INKS = {
    True: "var(--held, #15803d)",
    False: "var(--broken, #b91c1c)",
    None: "var(--faint, #64748b)",
}
TEMPLATES.globals.update(HELD=HELD, INKS=INKS, KINDS=KINDS)


def html(template: str, **values: object) -> Markup:
    """One of the templates, filled; every value is escaped unless it is HTML already."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values))


def figure(stage: StageRun, figure, name: str, takeaway: str, hero: bool = False) -> None:
    """See `StageRun.figure`; the figure must have a title and the takeaway must be a sentence."""
    from katlab.lab import drawn

    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    title = next(filter(None, titles), "")
    if not title:
        raise UserError(f"Figure '{name}' has no title; give one axes.set_title or a suptitle.")
    if not takeaway.strip().endswith((".", "!", "?")):
        raise UserError(f"The takeaway of figure '{name}' must be one sentence with a full stop.")
    if remark := stage.config.model.weights if stage.writes else "":
        takeaway = f"{takeaway} Weights: {remark}."
    _spell(figure)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, bbox_inches="tight")
    alt = drawn.alt(figure)
    if stage.writes:
        _files(stage.figures / name, figure, image.getvalue())
        index = stage.figures / "index.json"
        shown = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
        shown[name] = {"title": title, "takeaway": takeaway, "alt": alt, "hero": hero}
        stage.write("figures/index.json", shown)
    import matplotlib.pyplot as plt

    plt.close(figure)
    if stage.shows:
        data = base64.b64encode(image.getvalue()).decode()
        show(html("figure", name=name, alt=alt, takeaway=takeaway, data=data))


def _spell(figure) -> None:
    """Names of data as words on the axes: multi_turn as multi turn."""
    from matplotlib.text import Text

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        told = [label.get_text() for label in axis.get_ticklabels()]
        if told != [spelled(text) for text in told]:
            axis.set_ticks(axis.get_ticklocs(), [spelled(text) for text in told])
    for text in figure.findobj(Text):
        text.set_text(spelled(text.get_text()))


def spelled(text: str) -> str:
    """A name of data in words; what is no such name stays."""
    return text.replace("_", " ") if NAME.fullmatch(text) else text


def _files(path: Path, figure, png: bytes) -> None:
    """The figure as PNG, as SVG on no ground, and its data as CSV."""
    import matplotlib
    import pandas as pd

    from katlab.lab import drawn

    path.with_suffix(".png").write_bytes(png)
    with matplotlib.rc_context({"svg.hashsalt": path.name}):  # the same figure, the same file
        figure.savefig(
            path.with_suffix(".svg"), bbox_inches="tight", transparent=True, metadata={"Date": None}
        )
    table = pd.DataFrame(drawn.rows(figure), columns=list(drawn.COLUMNS)).dropna(axis=1, how="all")
    runs.replace(path.with_suffix(".csv"), table.to_csv(index=False))


def table(stage: StageRun, content: Any, caption: str, formats: Mapping[str, str]) -> None:
    """See `StageRun.table`."""
    import pandas as pd

    from katlab.lab import words

    if isinstance(content, Mapping):
        content = pd.Series(words.figures(stage.name, content), name="value")
    frame = content.to_frame() if isinstance(content, pd.Series) else content
    heads = [_name(column, frame.columns.name) for column in frame.columns]
    keys = [str(name or "") for name in frame.index.names]
    rows = [
        (
            [cell(key) for key in (index if isinstance(index, tuple) else (index,))],
            [cell(v, formats.get(h, formats.get("", ""))) for h, v in zip(heads, row, strict=True)],
        )
        for index, row in zip(frame.index, frame.itertuples(index=False, name=None), strict=True)
    ]
    if isinstance(frame.index, pd.RangeIndex) and not frame.index.name:
        keys, rows = [], [([], row) for _, row in rows]
    short = all(len(Markup(text).striptags()) <= SHORT for _, row in rows for text in row)
    if stage.shows:
        show(html("table", caption=caption, keys=keys, heads=heads, rows=rows, short=short))


def _name(column: object, kind: str | None) -> str:
    """The head of a column: a number says of what."""
    if isinstance(column, tuple):
        return " · ".join(map(str, column))
    return f"{kind} {column}" if kind and not isinstance(column, str) else spelled(str(column))


def cell(value: Any, form: str = "") -> str:
    """A value of a table for people: HTML as it is, numbers rounded or in a format, – for none."""
    if isinstance(value, Markup):
        return value
    value = value.item() if hasattr(value, "item") else value
    if value is None or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, int | float):
        return format(value, form) if form else number(value)
    return spelled(str(value))


def verdict(stage: StageRun, rows: Sequence[Claim]) -> None:
    """See `StageRun.verdict`."""
    shown = [
        {
            "claim": row.claim,
            "reported": number(row.reported),
            "measured": number(row.measured),
            "held": None if row.held is None else bool(row.held),
            "kind": row.kind,
        }
        for row in sorted(rows, key=lambda row: list(KINDS).index(row.kind))  # facts last
    ]
    if stage.writes:
        stage.write("verdict.json", shown)
    if stage.shows:
        show(html("verdicts", rows=shown))


def run_card(stage: StageRun) -> Markup:
    """What this run is, as a small HTML table."""
    record = runs.read(stage.dir)
    git, settings = record["git"], profiles.flat(record["settings"])
    facts = {
        "stage": stage.name,
        "run": f"{stage.run} · profile {stage.profile} · seed {stage.seed}",
        "overrides": ", ".join(differences(stage.profile, stage.overrides)),
        "weights": stage.config.model.weights,
        "settings, as -o takes them": ", ".join(f"{k} = {v}" for k, v in settings.items()),
        "upstream": ", ".join(_upstream(stage.dir.parent / need) for need in record["upstream"]),
        "versions": ", ".join(f"{k} {v}" for k, v in record["versions"].items()),
        "commit": git and git["sha"][:12] + (" with local changes" if git["changed"] else ""),
    }
    return html("card", facts=facts)


def _upstream(folder: Path) -> str:
    """A stage that this one reads, and whether it is stale itself."""
    newer = runs.stale(folder) if (folder / "run.json").is_file() else []
    told = f" (stale: {', '.join(name[:2] for name in newer)} was run anew since)" if newer else ""
    return folder.name + told


def differences(profile: str, overrides: Mapping[str, Any]) -> list[str]:
    """What overrides change in their profile, as "step_srpo.omega 0.35 → 0.3"."""
    shipped = profiles.flat(profiles.table(profile)) if overrides else {}
    return [f"{key} {shipped.get(key, '–')} → {value}" for key, value in overrides.items()]


def show(content: Markup) -> None:
    """Display HTML in the notebook."""
    from IPython.display import HTML, display

    display(HTML(content))
