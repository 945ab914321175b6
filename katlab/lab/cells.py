"""The cells of an executed notebook as HTML that needs no script and no network.

nbconvert renders them; ours are formulas as MathML, links from stage to stage, figures as vector
graphics with their files, the run's own parameters, and what templates/cells.html says of errors,
widgets and progress bars.
Tags: remove-cell, remove-input and hide-input, as Jupyter Book means them; prose tagged
`with-code` is read with the code that follows it, and shown and hidden with it.

Usage:  cells.html(nbformat.read(folder / "notebook.ipynb", as_version=4), folder, parameters)
"""

import re
from pathlib import Path

from jinja2 import pass_context
from jinja2.runtime import Context
from latex2mathml.converter import convert
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from katlab.lab import pictures

# papermill's own "An Exception was encountered" cells: the error itself stays in its cell.
REMOVED = {"remove-cell", "injected-parameters", "papermill-error-cell-tag"}
WITH_CODE = "with-code"
STYLES = {"light": "xcode", "dark": "github-dark"}  # Pygments', all of their colours readable
NOTEBOOK = re.compile(r"^(\d\d_\w+)\.ipynb")
PARAMETER = re.compile(r"^(\w+)(: \w+)? = .*?(\s+#.*)?$", re.M)
FIGURE = re.compile(r'<figure id="([\w-]+)".*?</figure>', re.S)
HEAD = re.compile(r"<thead.*?</thead>", re.S)
BARE = re.compile(r"<th(?=[ >])(?![^>]*scope=)")  # a header cell that does not say of what
HEADING = re.compile(r"#+ [^\n]*")


def highlighting() -> Markup:
    """The style of code on a light ground and on a dark one."""
    light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in STYLES.values())
    return Markup(f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}")


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown renderer with formulas as MathML and stages linked to their pages."""

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return convert(body)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, NOTEBOOK.sub(r"../\1/report.html", url), title)


def markdown(source: str, attachments: dict | None = None) -> Markup:
    """Markdown of a notebook as HTML."""
    render = MarkdownWithMath(_Renderer(escape=False, attachments=attachments)).render
    return Markup(render(source))


@pass_context
def _markdown(context: Context, source: str) -> str:
    return markdown(source, context.get("cell", {}).get("attachments"))


def html(notebook: NotebookNode, folder: Path, parameters: dict) -> Markup:
    """The cells up to the first error (those after it never ran) of the stage in `folder`."""
    for place, cell in enumerate(notebook.cells):
        kinds = [output.output_type for output in cell.get("outputs", [])]
        if "error" in kinds:
            cell.outputs = cell.outputs[: kinds.index("error") + 1]
            notebook.cells = notebook.cells[: place + 1]
            break
    _own(notebook.cells, parameters)
    _fold(notebook.cells)
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = REMOVED
    config.TagRemovePreprocessor.remove_input_tags = {"remove-input", "hide-input"}
    exporter = HTMLExporter(
        template_name="basic",
        template_file=str(Path(__file__).with_name("templates") / "cells.html"),
        config=config,
    )
    exporter.register_filter("markdown2html", _markdown)
    page = exporter.from_notebook_node(notebook)[0]
    drawn = pictures.shown(folder)

    def picture(match: re.Match) -> str:
        return pictures.html(folder, match[1]) if match[1] in drawn else match[0]

    page = HEAD.sub(lambda head: BARE.sub('<th scope="col"', head[0]), page)
    return Markup(FIGURE.sub(picture, BARE.sub('<th scope="row"', page)))


def _own(cells: list[NotebookNode], parameters: dict) -> None:
    """The parameters cell with the values of the run instead of the notebook's defaults."""

    def line(match: re.Match) -> str:
        name, kind, comment = match[1], match[2] or "", match[3] or ""
        value = repr(parameters[name]).replace("'", '"') if name in parameters else None
        return match[0] if value is None else f"{name}{kind} = {value}{comment}"

    for cell in cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = PARAMETER.sub(line, cell.source)


def _fold(cells: list[NotebookNode]) -> None:
    """Tag the headings under which nothing is left to see once the code is folded away."""
    below = False  # whether something to see stands between here and the next heading
    for cell in reversed(cells):
        tags = cell.metadata.setdefault("tags", [])
        if cell.cell_type != "markdown":
            seen = [
                output for output in cell.get("outputs", []) if "kat-progress" not in str(output)
            ]
            below = below or bool(seen) and not REMOVED & {*tags}
        elif WITH_CODE not in tags:
            text = cell.source.strip()
            depth = len(text) - len(text.lstrip("#"))
            if HEADING.fullmatch(text) and not below:
                tags.append(WITH_CODE)
            else:  # a section within one is something to see of it
                below = depth == 0 or depth > 2
