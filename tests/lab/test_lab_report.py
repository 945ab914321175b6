"""The pages of a run: offline, formulas readable, code folded away, every outcome worded."""

import re

import nbformat
import pytest

from katlab import UserError
from katlab.lab import Claim, report
from katlab.lab.runs import StageRun

TEXT = """# Title
One is $a_1^2 + b$, a price is \\$5 or \\$6, and `$code_1$` stays; cost $5.

$$\\frac{1}{T} \\sum_{t=1}^{T} x_t < y$$

```
$fenced$
```
"""


def rendered(tmp_path, *cells, state="done", error=""):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(TEXT), *cells])
    nbformat.write(book, stage.dir / "notebook.ipynb")
    stage.close(state, error)
    return stage, report.stage(stage.dir).read_text()


def code(source, *outputs, tags=()):
    return nbformat.v4.new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def test_a_page_loads_nothing_from_anywhere(tmp_path):
    _, page = rendered(tmp_path, code("1 + 1"))
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(|src=\"http", page)
    assert page.startswith("<!doctype html>") and 'name="viewport"' in page


def test_formulas_become_mathml_and_code_stays(tmp_path):
    _, page = rendered(tmp_path)
    assert page.count("<math") == 2
    assert "<msubsup><mi>a</mi><mn>1</mn><mn>2</mn></msubsup>" in page
    assert 'display="block"' in page and "<mfrac>" in page
    assert "$5 or $6" in page and "$code_1$" in page and "$fenced$" in page and "cost $5." in page
    assert "KATFORMULA" not in page


def test_tags_remove_cells_and_inputs(tmp_path):
    said = nbformat.v4.new_output("stream", text="said")
    _, page = rendered(
        tmp_path,
        code("cell_one", said),
        code("gone = 1", said, tags=["remove-cell"]),
        code("injected = 1", tags=["injected-parameters"]),
        code("hidden_one", said, tags=["remove-input"]),
        code("hidden_two", said, tags=["hide-input"]),
    )
    assert "cell_one" in page and page.count(">said") == 3
    for source in ("gone", "injected", "hidden_one", "hidden_two"):
        assert source not in page


def test_a_widget_leaves_nothing_on_the_page(tmp_path):
    widget = "application/vnd.jupyter.widget-view+json"
    view = {widget: {"model_id": "1"}, "text/plain": "  0%|          | 0/9"}
    bar = nbformat.v4.new_output("display_data", data=view)
    figure = nbformat.v4.new_output("display_data", data={"text/plain": "a figure"})
    _, page = rendered(tmp_path, code("load()", bar, figure))
    assert "0%|" not in page and "a figure" in page


def broken(kind: str) -> nbformat.NotebookNode:
    trace = ["Traceback (most recent call last)", "\x1b[31mdeep\x1b[0m inside <module>"]
    return nbformat.v4.new_output("error", ename=kind, evalue="a < b", traceback=trace)


def test_an_error_is_a_sentence_with_its_traceback_folded_away(tmp_path):
    cell = code("f()", broken("ValueError"))
    _, page = rendered(tmp_path, cell, state="failed", error="ValueError: a < b")
    shown, folded, rest = re.split(r"<details>|</details>", page)
    assert "deep inside &lt;module&gt;" in folded
    assert "Traceback (" in folded and "Traceback (" not in shown + rest
    assert shown.count("ValueError: a &lt; b") == 2


def test_a_mistake_is_one_sentence(tmp_path):
    _, page = rendered(tmp_path, code("f()", broken("UserError")))
    assert "UserError: a &lt; b" in page and "<details>" not in page


def test_cells_that_never_ran_are_left_out(tmp_path):
    later = nbformat.v4.new_markdown_cell("## Figures")
    half = nbformat.v4.new_output("display_data", data={"text/plain": "half a figure"})
    failed = code("f()", broken("ValueError"), half)
    _, page = rendered(tmp_path, code("first()"), failed, later)
    assert "first" in page and "a &lt; b" in page and "Figures" not in page
    assert "half a figure" not in page


def test_links_between_notebooks_lead_to_pages(tmp_path):
    text = "[one](01_layer_saturation.ipynb#idea) [two](https://x.y/01_a.ipynb)"
    _, page = rendered(tmp_path, nbformat.v4.new_markdown_cell(text))
    assert 'href="../01_layer_saturation/report.html#idea"' in page
    assert 'href="https://x.y/01_a.ipynb"' in page


def test_the_index_words_every_outcome(tmp_path):
    stage, _ = rendered(tmp_path)
    rows = [("Up <b>.", True, "report"), ("Down.", False, "target"), ("Aside.", None, "check")]
    claims = [Claim(name, 1, 2, held, kind) for name, held, kind in rows]
    stage.verdict([*claims, Claim("Rows.", 1, 2, None, "fact")])
    stage.record(reward=0.875)
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.set_title("A line")
    stage.figure(figure, "line", "It rises & falls.")
    broken = StageRun.create(tmp_path, "r", "06_evaluation", seed=1)
    broken.close("failed", "ValueError: <no towel>")
    page = report.index(tmp_path / "r").read_text()
    for words in ("Up &lt;b&gt;.", ">held<", ">not held<", ">not applicable<", "1 of 2"):
        assert words in page
    assert "reward 0.875" in page and "It rises &amp; falls." in page
    assert "ValueError: &lt;no towel&gt;" in page and ">failed<" in page
    assert 'href="05_step_srpo/report.html"' in page
    assert 'href="05_step_srpo/report.html#line"><svg role="img" aria-label="A line. A' in page
    assert 'href="06_evaluation/report.html"' not in page  # it has no page, so no dead link
    assert page.count("<th ") == page.count('<th scope="col"') == 28  # what a screen reader needs
    assert not re.search(r"<script|<link|src=\"http", page)


def test_pages_link_to_stages_that_ran_later(tmp_path):
    stage, first = rendered(tmp_path)
    assert "06_evaluation" not in first
    later = StageRun.create(tmp_path, "r", "06_evaluation")
    (later.dir / "notebook.ipynb").write_text((stage.dir / "notebook.ipynb").read_text())
    later.finish()
    report.stage(later.dir)
    report.index(tmp_path / "r")
    assert 'href="../06_evaluation/report.html"' in (stage.dir / "report.html").read_text()


def test_an_unknown_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no run 'x'"):
        report.index(tmp_path / "x")


def line(stage, hero=False):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([0, 1], [0.5, 0.25], label="loss", color="#334155")
    axes.set_title("A line")
    stage.figure(figure, "line", "It falls.", hero=hero)


def test_the_index_begins_with_question_hero_and_sentences(tmp_path):
    start = StageRun.create(tmp_path, "r", "00_start_here")
    text = "# Title\n\n**Question.** Is $2 + 3$\nfive?\n\nMore."
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    nbformat.write(book, start.dir / "notebook.ipynb")
    start.finish()
    stage = StageRun.create(tmp_path, "r", "06_evaluation", overrides={"step_srpo.omega": 0.3})
    line(stage, hero=True)
    stage.story("Fewer tokens.", "No < loss.")
    stage.verdict([Claim("Up.", 1, 2, False, "report"), Claim("Up.", 1, 2, False, "report")])
    stage.finish()
    page = report.index(tmp_path / "r").read_text()
    told = ["five?", 'id="06_evaluation-line"', "Fewer tokens.", "No &lt; loss.", 'id="missed"']
    places = [page.index(text) for text in [*told, 'id="stages"', 'id="claims"', 'id="glossary"']]
    assert places == sorted(places)
    assert "0 of 1" in page  # a claim made twice is one claim
    assert "step_srpo.omega 0.1 → 0.3" in page
    assert all(f'href="#{name}"' in page for name in ("result", "missed", "stages", "claims"))


def test_an_index_marks_what_is_stale(tmp_path):
    StageRun.create(tmp_path, "r", "04_cold_start", fingerprint="new").finish()
    stage = StageRun.create(tmp_path, "r", "05_step_srpo", upstream={"04_cold_start": "old"})
    stage.finish()
    page = report.index(tmp_path / "r").read_text()
    assert page.count('class="stale"') == 1


def test_a_figure_comes_with_its_files_and_turns_with_the_page(tmp_path):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    line(stage)
    shown = '<figure id="line"><img src="x"><figcaption>It falls.</figcaption></figure>'
    output = nbformat.v4.new_output("display_data", data={"text/html": shown})
    _, page = rendered(tmp_path, code("draw()", output))
    assert 'href="figures/line.svg"' in page and 'href="figures/line.csv"' in page
    assert 'href="#line"' in page and page.count('id="line"') == 1
    assert "<svg role=" in page and "var(--ink, #334155)" in page and "#334155 " not in page
    table = (stage.figures / "line.csv").read_text().splitlines()
    assert table[:2] == ["panel,series,kind,x,y", "A line,loss,line,0.0,0.5"]


def test_code_is_shown_with_the_parameters_of_the_run(tmp_path):
    source = 'profile: str = "nano"  # which\nrun: str = "demo"  # folder\nseed: int = 7'
    _, page = rendered(tmp_path, code(source, tags=["parameters"]))
    text = re.sub(r"<[^>]+>", "", page).replace("&quot;", '"')
    assert 'run: str = "r"  # folder' in text and "seed: int = 0" in text


def test_a_heading_with_nothing_but_code_under_it_is_folded_with_the_code(tmp_path):
    heading = nbformat.v4.new_markdown_cell
    said = nbformat.v4.new_output("stream", text="said")
    bar = nbformat.v4.new_output("display_data", data={"text/html": '<p class="kat-progress">'})
    prose = nbformat.v4.new_markdown_cell("Of code only.", metadata={"tags": ["with-code"]})
    cells = [heading("## One"), prose, code("a = 1"), heading("## Two"), code("b", bar)]
    cells += [heading("## Three"), code("c", said), heading("## Four"), heading("Words.")]
    _, page = rendered(tmp_path, *cells)
    folded = re.findall(r'celltag_with-code" .*?(?=<div class="cell)', page, re.S)
    text = re.sub(r"<[^>]+>", "", "".join(folded))
    assert all(word in text for word in ("One", "Of code only", "Two"))
    assert "Three" not in text and "Four" not in text and 'class="kat-progress"' not in page


def test_every_header_cell_says_of_what(tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0]}, index=["x"])._repr_html_()
    output = nbformat.v4.new_output("display_data", data={"text/html": frame})
    _, page = rendered(tmp_path, code("frame", output))
    assert page.count("<th ") == page.count("<th scope=") == 3 and "<th>" not in page


def test_a_link_to_a_page_that_is_not_there_is_none(tmp_path):
    text = nbformat.v4.new_markdown_cell("See [four](04_cold_start.ipynb#idea).")
    stage, page = rendered(tmp_path, text)
    report.index(tmp_path / "r")
    off = '<a class="off" data-page="../04_cold_start/report.html#idea"'
    assert off in (stage.dir / "report.html").read_text()
    earlier = StageRun.create(tmp_path, "r", "04_cold_start")
    (earlier.dir / "report.html").write_text("<nav></nav>")
    earlier.finish()
    report.index(tmp_path / "r")
    again = (stage.dir / "report.html").read_text()
    assert 'href="../04_cold_start/report.html#idea"' in again and 'class="off"' not in again


def test_figures_of_a_page_share_their_letters(tmp_path):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    line(stage, hero=True)
    other = StageRun.create(tmp_path, "r", "06_evaluation")
    line(other)
    page = report.index(tmp_path / "r").read_text()
    glyphs = re.findall(r'<path id="(DejaVu[\w-]+)"', page)
    assert glyphs and len(glyphs) == len(set(glyphs))
    assert {use.lstrip("#") for use in re.findall(r'href="(#DejaVu[\w-]+)"', page)} == {*glyphs}
