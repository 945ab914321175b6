"""Pages of a run: each executed notebook as report.html, and an index that tells its story.

Nothing is loaded from a network: formulas are MathML, figures are within the page, code folds away
behind a checkbox without scripts. The HTML is in templates/.

Usage:  report.stage(outputs / "demo" / "05_step_srpo");  report.index(outputs / "demo")
"""

import json
import re
from datetime import datetime
from pathlib import Path

from markupsafe import Markup

from katlab.lab import browser, pictures, runs, words
from katlab.lab.claims import KINDS
from katlab.lab.console import verdicts
from katlab.lab.display import differences, html
from katlab.lab.progress import seconds
from katlab.lab.runs import stage_folders

QUESTION = re.compile(r"^\*\*Question\.\*\* (.+?)\n\n", re.M | re.S)
GLYPH = re.compile(r'<path id="(DejaVu[\w-]+)"[^>]*/>')  # figures of a page share their letters
LINK = re.compile(
    r'<a(?: class="off" data-page="([^"]+)"| href="(\.\./\d\d_\w+/report\.html[^"]*)")'
)


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
        highlighting=cells.highlighting(),
        cells=cells.html(
            nbformat.read(folder / "notebook.ipynb", as_version=4), folder, record["parameters"]
        ),
    )


def index(run: Path) -> Path:
    """Write the index page of a run folder and return its path."""
    records = {folder: runs.read(folder) for folder in stage_folders(run)}
    rows = [{"folder": folder, **row} for folder in records for row in verdicts(folder)]
    rows = list({(row["kind"], row["claim"]): row for row in rows}.values())  # each counted once
    stages = [
        {
            "folder": folder,
            "state": runs.state(record),
            "stale": bool(runs.stale(folder)),
            "time": seconds(record["seconds"]) if "seconds" in record else "–",
            "what": record.get("error") or words.headline(record),
        }
        for folder, record in records.items()
    ]
    figures = [(folder, name) for folder in records for name in pictures.shown(folder)]
    heroes = [
        (folder, name) for folder, name in figures if pictures.shown(folder)[name].get("hero")
    ]
    for folder in records:
        _renew_links(folder)
    rollouts = browser.page(run)
    return _page(
        run / "index.html",
        "index",
        run=run.name,
        rollouts=rollouts and rollouts.name,
        question=next((_question(f) for f in records if f.name.startswith("00_")), ""),
        sentences=[sentence for folder in records for sentence in _story(folder)],
        facts=_facts(records, rows),
        stages=stages,
        rows=rows,
        missed=[row for row in rows if row["held"] is False],
        heroes=[
            pictures.html(folder, name, f"{folder.name}/", f"{folder.name}-{name}")
            for folder, name in heroes
        ],
        figures=[
            {"stage": folder.name, "name": name, "image": pictures.image(folder, name)}
            | pictures.shown(folder)[name]
            for folder, name in figures
            if (folder, name) not in heroes
        ],
        glossary=words.glossary(),
        versions=next((record["versions"] for record in records.values()), {}),
    )


def _facts(records: dict[Path, dict], rows: list[dict]) -> dict[str, str]:
    """What stands over an index: what the run is, what is done, how much of it held."""
    given = [record["parameters"] for record in records.values()]
    changed = [d for p in given for d in differences(p["profile"], p["overrides"])]
    done = [runs.state(record) for record in records.values()].count("done")
    judged = {
        title.lower(): [r["held"] for r in rows if r["kind"] == kind and r["held"] is not None]
        for kind, title in KINDS.items()
    }
    return {
        "profile": ", ".join(sorted({Path(p["profile"]).stem for p in given})),
        "seed": ", ".join(sorted({str(p["seed"]) for p in given})),
        "changed in the profile": ", ".join(dict.fromkeys(changed)) or "nothing",
        "stages done": f"{done} of {len(records)}",
        **{f"{title}, held": f"{sum(h)} of {len(h)}" for title, h in judged.items() if h},
        "time": seconds(sum(record.get("seconds", 0) for record in records.values())),
    }


def _story(folder: Path) -> list[str]:
    """What a stage wrote by `StageRun.story`."""
    path = folder / "story.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def _question(folder: Path) -> Markup:
    """The question that a stage's notebook begins with; empty if it asks none."""
    from katlab.lab import cells

    path = folder / "notebook.ipynb"
    text = path.read_text(encoding="utf-8") if path.is_file() else '{"cells": []}'
    first = "".join("".join(cell["source"]) + "\n\n" for cell in json.loads(text)["cells"][:1])
    found = QUESTION.search(first)
    return cells.markdown(found[1].replace("\n", " ")) if found else Markup("")


def _navigation(folder: Path) -> Markup:
    """The bar of a stage page: up, the stages before and after it, the code switch."""
    names = ["", *(path.name for path in stage_folders(folder.parent)), ""]
    place = names.index(folder.name)
    before, after = names[place - 1], names[place + 1]
    around = {"run": folder.parent.name, "before": before, "after": after}
    newer = [name[:2] for name in runs.stale(folder)]
    return html("navigation", **around, rollouts=browser.link(folder), newer=newer)


def _renew_links(folder: Path) -> None:
    """Give a page the links to stages that ran after it, and none to a page that is not there."""
    page = folder / "report.html"
    if not page.is_file():
        return
    head, _, rest = page.read_text(encoding="utf-8").partition("<nav>")
    text = f"{head}{_navigation(folder)}{rest.partition('</nav>')[2]}"

    def link(match: re.Match) -> str:
        target = match[1] or match[2]
        there = (folder / target.partition("#")[0]).is_file()
        return f'<a href="{target}"' if there else f'<a class="off" data-page="{target}"'

    runs.replace(page, LINK.sub(link, text))


def _page(path: Path, template: str, **values: object) -> Path:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    known: set[str] = set()

    def first(glyph: re.Match) -> str:
        again = glyph[1] in known
        known.add(glyph[1])
        return "" if again else glyph[0]

    runs.replace(path, GLYPH.sub(first, html(template, when=when, **values)))
    return path
