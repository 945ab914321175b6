"""Pages of a run: each executed notebook as report.html, and an index over the run.

nbconvert renders the cells; the page around them is ours, so nothing is loaded from a network:
formulas become MathML, figures are embedded, code folds away behind a checkbox without scripts.
Tags: remove-cell, remove-input and hide-input, as Jupyter Book means them.

Usage:  report.stage(outputs / "demo" / "05_step_srpo");  report.index(outputs / "demo")
"""

import base64
import html
import json
import re
from datetime import datetime
from pathlib import Path

from katlab import UserError
from katlab.lab import runs
from katlab.lab.console import verdicts
from katlab.lab.display import verdict_table
from katlab.lab.progress import headline, seconds

STYLE = Path(__file__).with_name("style.css")
# A widget needs a script from a network, and a progress bar is no finding: pages leave them out.
WIDGET = "application/vnd.jupyter.widget-view+json"
FENCED = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\\w$])\$(?=\S)([^$\n]+?)(?<=\S)\$(?![\w$])", re.DOTALL)
TELLING_FIGURES = 2  # a stage's figures on the index page


def stage(folder: Path) -> Path:
    """Render folder/notebook.ipynb to folder/report.html and return its path."""
    import nbformat
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter
    from traitlets.config import Config

    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    notebook.metadata.pop("widgets", None)
    formulas: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _formulas(cell.source, formulas)
        elif "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
    notebook.cells = [cell for cell in notebook.cells if not _is_error_banner(cell)]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            cell.outputs = [_without_traceback(output) for output in shown]
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = {"remove-cell"}
    config.TagRemovePreprocessor.remove_input_tags = {"remove-input", "hide-input"}
    body, _ = HTMLExporter(template_name="basic", config=config).from_notebook_node(notebook)
    for place, formula in enumerate(formulas):
        body = body.replace(f"KATFORMULA{place}X", formula)
    body = f"<style>{HtmlFormatter(style='friendly').get_style_defs('.highlight')}</style>{body}"
    record = runs.read(folder)
    if record.get("error"):
        note = html.escape(f"{runs.state(record)}: {record['error']}")
        body = f'<p class="note">{note}</p>{body}'
    title = f"{folder.name} · {folder.parent.name}"
    return _page(folder / "report.html", title, _navigation(folder), body)


def index(run: Path) -> Path:
    """Write the index page of a run folder and return its path."""
    folders = stage_folders(run)
    records = {folder: runs.read(folder) for folder in folders}
    rows = [{"stage": _link(folder), **row} for folder in folders for row in verdicts(folder)]
    asked = [row for row in rows if row["held"] is not None]
    held = sum(row["held"] for row in asked)
    done = sum(runs.state(record) == "done" for record in records.values())
    facts = {
        "profile": " ".join(sorted({r["parameters"]["profile"] for r in records.values()})),
        "seed": " ".join(sorted({str(r["seed"]) for r in records.values()})),
        "stages done": f"{done} of {len(folders)}",
        "claims held": f"{held} of {len(asked)}",
        "time": seconds(sum(record.get("seconds", 0) for record in records.values())),
    }
    cards = "".join(
        f"<div><span>{key}</span><b>{html.escape(value) or '–'}</b></div>"
        for key, value in facts.items()
    )
    parts = [f"<h1>Run {html.escape(run.name)}</h1>"]
    parts.append('<p class="lead">Learning when to think, after the KAT-V1 report.</p>')
    parts.append(f'<div class="facts">{cards}</div>')
    parts.append(f"<h2>Stages</h2>{_stage_table(records)}")
    if rows:
        parts.append(f"<h2>Claims and what this run measured</h2>{verdict_table(rows, 'stage')}")
    gallery = "".join(_thumbnails(folder) for folder in folders)
    if gallery:
        parts.append(f'<h2>Figures</h2><div class="gallery">{gallery}</div>')
    versions = next((r["versions"] for r in records.values()), {})
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts.append(f'<h2>Made with</h2><p class="lead">{html.escape(listed)}</p>')
    for folder in folders:
        _renew_navigation(folder)
    return _page(run / "index.html", f"Run {run.name}", "", "".join(parts))


def stage_folders(run: Path) -> list[Path]:
    """The stage folders of a run, in order; UserError if there is no such run."""
    if not run.is_dir():
        there = ", ".join(sorted(p.name for p in run.parent.glob("*") if p.is_dir())) or "none"
        raise UserError(f"There is no run '{run.name}' in {run.parent} (there: {there}).")
    return sorted(path.parent for path in run.glob("*/run.json"))


def _stage_table(records: dict[Path, dict]) -> str:
    rows = ""
    for folder, record in records.items():
        state = runs.state(record)
        spent = seconds(record["seconds"]) if "seconds" in record else "–"
        what = html.escape(record.get("error") or headline(record))
        rows += (
            f'<tr><td>{_link(folder)}</td><td class="state {state}">{state}</td>'
            f'<td style="white-space:nowrap">{spent}</td><td>{what}</td></tr>'
        )
    head = "<tr><th>stage</th><th>state</th><th>time</th><th>headline figures</th></tr>"
    return f'<div class="scroll"><table style="width:100%">{head}{rows}</table></div>'


def _thumbnails(folder: Path) -> str:
    path = folder / "figures" / "index.json"
    figures = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    shown = ""
    for name, text in list(figures.items())[:TELLING_FIGURES]:
        data = base64.b64encode((folder / "figures" / f"{name}.png").read_bytes()).decode()
        takeaway = html.escape(text["takeaway"])
        shown += (
            f'<a href="{folder.name}/report.html"><img alt="{takeaway}" '
            f'src="data:image/png;base64,{data}"><p><small>{html.escape(folder.name)}</small>'
            f"{takeaway}</p></a>"
        )
    return shown


def _link(folder: Path) -> str:
    name = html.escape(folder.name)
    if not (folder / "report.html").is_file():
        return name
    return f'<a style="white-space:nowrap" href="{folder.name}/report.html">{name}</a>'


def _navigation(folder: Path) -> str:
    """The bar of a stage page: up, the stages before and after it, the code switch."""
    folders = stage_folders(folder.parent)
    place = folders.index(folder)
    links = f'<a href="../index.html">↑ run {html.escape(folder.parent.name)}</a>'
    for near, form in ((folders[:place][-1:], "← {}"), (folders[place + 1 :][:1], "{} →")):
        for other in near:
            label = html.escape(form.format(other.name))
            links += f'<a href="../{other.name}/report.html">{label}</a>'
    switch = '<label class="toggle"><input type="checkbox" id="code"> show code</label>'
    return f"<nav>{links}{switch}</nav>"


def _renew_navigation(folder: Path) -> None:
    """Give a page the links to stages that ran after it."""
    page = folder / "report.html"
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        head, _, rest = text.partition("<nav>")
        runs.replace(page, head + _navigation(folder) + rest.partition("</nav>")[2])


def _formulas(source: str, found: list[str]) -> str:
    """Markdown with each formula outside code replaced by a placeholder; MathML goes to `found`."""
    from latex2mathml.converter import convert

    def place(match: re.Match) -> str:
        block, inline = match.groups()
        found.append(convert(block or inline, display="block" if block else "inline"))
        return f"KATFORMULA{len(found) - 1}X"

    pieces = FENCED.split(source)
    pieces[::2] = [FORMULA.sub(place, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _is_error_banner(cell: dict) -> bool:
    """papermill's own 'An Exception was encountered' cells; the error itself stays in its cell."""
    return "papermill-error-cell-tag" in cell.metadata.get("tags", [])


def _without_traceback(output: dict) -> dict:
    if output.output_type != "error":
        return output
    import nbformat

    message = html.escape(f"{output.ename}: {output.evalue}")
    return nbformat.v4.new_output("display_data", {"text/html": f'<p class="note">{message}</p>'})


def _page(path: Path, title: str, nav: str, body: str) -> Path:
    when = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    runs.replace(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE.read_text(encoding='utf-8')}</style>"
        f'</head><body><header class="page">{nav}</header><main>{body}</main>'
        f"<footer>katlab · {when}</footer></body></html>\n",
    )
    return path
