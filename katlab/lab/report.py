"""Pages of a run: each executed notebook as report.html, and an index over the run.

Nothing is loaded from a network: formulas are MathML, figures are embedded, code folds away
behind a checkbox without scripts. The HTML is in templates/.

Usage:  report.stage(outputs / "demo" / "05_step_srpo");  report.index(outputs / "demo")
"""

import base64
import json
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from katlab.lab import browser, runs
from katlab.lab.console import verdicts
from katlab.lab.display import html
from katlab.lab.progress import headline, seconds
from katlab.lab.runs import stage_folders

TELLING_FIGURES = 2  # a stage's figures on the index page


def stage(folder: Path) -> Path:
    """Render folder/notebook.ipynb to folder/report.html and return its path."""
    import nbformat

    from katlab.lab import cells

    record = runs.read(folder)
    return _page(
        folder / "report.html",
        "stage",
        folder=folder,
        record=record,
        state=runs.state(record),
        navigation=_navigation(folder),
        highlighting=cells.HIGHLIGHTING,
        cells=cells.html(nbformat.read(folder / "notebook.ipynb", as_version=4)),
    )


def index(run: Path) -> Path:
    """Write the index page of a run folder and return its path."""
    records = {folder: runs.read(folder) for folder in stage_folders(run)}
    states = {folder: runs.state(record) for folder, record in records.items()}
    rows = [{"folder": folder, **row} for folder in records for row in verdicts(folder)]
    asked = [row["held"] for row in rows if row["held"] is not None]
    facts = {
        "profile": " ".join(sorted({r["parameters"]["profile"] for r in records.values()})),
        "seed": " ".join(sorted({str(r["seed"]) for r in records.values()})),
        "stages done": f"{list(states.values()).count('done')} of {len(records)}",
        "claims held": f"{sum(asked)} of {len(asked)}",
        "time": seconds(sum(record.get("seconds", 0) for record in records.values())),
    }
    stages = [
        {
            "folder": folder,
            "state": states[folder],
            "time": seconds(record["seconds"]) if "seconds" in record else "–",
            "what": record.get("error") or headline(record),
        }
        for folder, record in records.items()
    ]
    for folder in records:
        _renew_navigation(folder)
    rollouts = browser.page(run)
    return _page(
        run / "index.html",
        "index",
        run=run.name,
        rollouts=rollouts and rollouts.name,
        facts=facts,
        stages=stages,
        rows=rows,
        figures=[figure for folder in records for figure in _figures(folder)],
        versions=next((record["versions"] for record in records.values()), {}),
    )


def _figures(folder: Path) -> list[dict]:
    """The first figures of a stage with their stage, name, title, takeaway and PNG as base64."""
    path = folder / "figures" / "index.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return [
        {
            "stage": folder.name,
            "name": name,
            "data": base64.b64encode(path.with_name(f"{name}.png").read_bytes()).decode(),
            **text,
        }
        for name, text in list(figures.items())[:TELLING_FIGURES]
    ]


def _navigation(folder: Path) -> Markup:
    """The bar of a stage page: up, the stages before and after it, the code switch."""
    names = ["", *(path.name for path in stage_folders(folder.parent)), ""]
    place = names.index(folder.name)
    before, after = names[place - 1], names[place + 1]
    around = {"run": folder.parent.name, "before": before, "after": after}
    newer = [name[:2] for name in runs.stale(folder)]
    return html("navigation", **around, rollouts=browser.link(folder), newer=newer)


def _renew_navigation(folder: Path) -> None:
    """Give a page the links to stages that ran after it."""
    page = folder / "report.html"
    if page.is_file():
        head, _, rest = page.read_text(encoding="utf-8").partition("<nav>")
        runs.replace(page, f"{head}{_navigation(folder)}{rest.partition('</nav>')[2]}")


def _page(path: Path, template: str, **values: object) -> Path:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    runs.replace(path, html(template, when=when, **values))
    return path
