"""What a stage shows: the run card, figures with takeaways, the verdict table.

Everything shown is plain HTML and PNG, which Jupyter, papermill, nbconvert and GitHub keep.

Usage:  display.figure(stage, figure, "loss", "It falls.")
"""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from katlab import UserError
from katlab.lab import profiles, runs
from katlab.lab.claims import KINDS, Claim
from katlab.lab.progress import number
from katlab.lab.runs import StageRun

HELD = {True: "held", False: "not held", None: "not applicable"}
COLOURS = {True: "#15803d", False: "#b91c1c", None: "#64748b"}
STYLE = Path(__file__).with_name("house.mplstyle")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals.update(HELD=HELD, COLOURS=COLOURS, KINDS=KINDS)


def html(template: str, **values: object) -> Markup:
    """One of the templates, filled; every value is escaped unless it is HTML already."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values))


def figure(stage: StageRun, figure, name: str, takeaway: str) -> None:
    """See `StageRun.figure`; the figure must have a title and the takeaway must be a sentence."""
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    title = next(filter(None, titles), "")
    if not title:
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
        stage.write("figures/index.json", shown | {name: {"title": title, "takeaway": takeaway}})
    if stage.shows:
        data = base64.b64encode(image.getvalue()).decode()
        show(html("figure", name=name, title=title, takeaway=takeaway, data=data))


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
    git = record["git"]
    facts = {
        "stage": stage.name,
        "run": f"{stage.run} · profile {stage.profile} · seed {stage.seed}",
        "overrides": ", ".join(f"{k} = {v}" for k, v in stage.overrides.items()),
        "settings": ", ".join(f"{k} = {v}" for k, v in profiles.flat(record["settings"]).items()),
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


def show(content: Markup) -> None:
    """Display HTML in the notebook."""
    from IPython.display import HTML, display

    display(HTML(content))
