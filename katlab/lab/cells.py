"""The cells of an executed notebook as HTML that needs no script and no network.

nbconvert renders them; ours are formulas as MathML, links from stage to stage, and what
templates/cells.html says of errors and widgets.
Tags: remove-cell, remove-input and hide-input, as Jupyter Book means them.

Usage:  cells.html(nbformat.read(folder / "notebook.ipynb", as_version=4))
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

# papermill's own "An Exception was encountered" cells: the error itself stays in its cell.
REMOVED = {"remove-cell", "injected-parameters", "papermill-error-cell-tag"}
HIGHLIGHTING = Markup(HtmlFormatter(style="friendly").get_style_defs(".highlight"))
NOTEBOOK = re.compile(r"^(\d\d_\w+)\.ipynb")


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown renderer with formulas as MathML and stages linked to their pages."""

    def block_math(self, body: str) -> str:
        return convert(body, display="block")

    def inline_math(self, body: str) -> str:
        return convert(body)

    def link(self, text: str, url: str, title: str | None = None) -> str:
        return super().link(text, NOTEBOOK.sub(r"../\1/report.html", url), title)


@pass_context
def _markdown(context: Context, source: str) -> str:
    attachments = context.get("cell", {}).get("attachments")
    return MarkdownWithMath(_Renderer(escape=False, attachments=attachments)).render(source)


def html(notebook: NotebookNode) -> Markup:
    """The cells up to the first error; those after it never ran."""
    for place, cell in enumerate(notebook.cells):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            notebook.cells = notebook.cells[: place + 1]
            break
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
    return Markup(exporter.from_notebook_node(notebook)[0])
