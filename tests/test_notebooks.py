"""Every notebook: a static lint, then all of them once, in order, on profile tiny."""

import ast
import html
import json
import math
import re
import tomllib
from pathlib import Path

import nbformat
import papermill
import pytest
from conftest import CHECKOUT

from katlab.lab import parameters, profiles, runs, stages

EVERY = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [path for path in EVERY if path.stem[0].isdecimal()]  # the stages
EXPLORE = CHECKOUT / "notebooks" / "explore.ipynb"
ABSOLUTE = re.compile(r"""["'](/(?!/)\w|~/|[A-Z]:\\)""")
SPAM = re.compile(r"\d+%\||it/s|s/it|Traceback \(most|Warning:|WARNING")

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
of_all = pytest.mark.parametrize("path", EVERY, ids=[path.stem for path in EVERY])
STAGES = [stages.named(path.stem) for path in NOTEBOOKS]
each_stage = pytest.mark.parametrize("stage", STAGES, ids=[s.name for s in STAGES])


def read(path: Path) -> nbformat.NotebookNode:
    book = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(book)
    return book


def code(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


@each_stage
def test_one_stage_is_one_notebook_one_package_one_test_folder_of_one_name(stage):
    assert (CHECKOUT / "notebooks" / f"{stage.name}.ipynb").is_file()
    if stage.module:
        name = stage.name[3:]
        assert stage.module == f"katlab.{name}.stage"
        assert (CHECKOUT / "katlab" / name / "settings.py").is_file()
        assert list((CHECKOUT / "tests" / name).glob("test_*.py"))


def test_every_notebook_but_the_one_to_explore_is_a_stage():
    named = {path.stem.partition("_")[2] for path in NOTEBOOKS}
    assert named == {*profiles.stage_sections(), "start_here"}
    assert [path for path in EVERY if path not in NOTEBOOKS] == [EXPLORE]
    assert [stage.name for stage in stages.discover()] == [path.stem for path in NOTEBOOKS]


@of_all
def test_committed_without_outputs_or_leftovers(path):
    book = read(path)
    assert (book.nbformat, book.nbformat_minor) == (4, 5)
    assert book.metadata.kernelspec.name == "python3"
    assert not {"widgets", "papermill"} & set(book.metadata)
    for cell in book.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None


@each
def test_the_parameters_cell_repeats_the_packages_defaults(path):
    parameters.check_cell(path)
    inferred = papermill.inspect_notebook(str(path))
    defaults = {name: ast.literal_eval(one["default"]) for name, one in inferred.items()}
    own = parameters.of(path.stem)
    assert list(defaults) == list(own)
    assert defaults == {name: parameter.default for name, parameter in own.items()}
    assert all(one["inferred_type_name"] != "None" for one in inferred.values())


@of_all
def test_cells_are_short_and_hold_no_machinery(path):
    imports = 0
    for cell in code(path):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert not re.search(r"^\s*[!%]|pip install|subprocess|os\.system", cell.source, re.M)
        assert not ABSOLUTE.search(cell.source), cell.source
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not any(isinstance(node, ast.ClassDef | ast.While) for node in nodes)
        calls = {
            n.func.attr
            for n in nodes
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }
        assert not calls & {"backward", "zero_grad", "optimizer_step"}
        imports += any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes)
    assert imports == 1


@of_all
def test_prose_comes_before_every_code_cell(path):
    cells = read(path).cells
    assert cells[0].source.startswith("# ")
    for before, cell in zip(cells, cells[1:], strict=False):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", cell.source


@each
def test_it_begins_as_itself_and_ends_with_a_verdict(path):
    sources = [cell.source for cell in code(path)]
    assert sum(f'lab.begin("{path.stem}", globals())' in source for source in sources) == 1
    assert sum("stage.verdict(" in source for source in sources) == 1
    assert sources[-1].rstrip().endswith("stage.finish()")
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert "$$" in prose, "the idea needs its formula"
    assert re.search(r"^## Verdict", prose, re.M)


@pytest.mark.slow
@each
def test_the_chain_makes_every_stage_whole(path, smoke):
    folder = smoke / path.stem
    record = runs.read(folder)
    assert record["state"] == "done" and not record["error"]
    assert {"git", "versions", "seed", "parameters", "upstream", "headline"} <= set(record)
    needs = stages.named(path.stem).needs
    assert set(record["upstream"]) == set(needs) and all(record["upstream"].values())
    assert record["headline"], "the stage puts no figure on record"
    rows = json.loads((folder / "verdict.json").read_text())
    assert rows and all(row["claim"] and row["measured"] for row in rows)
    figures = json.loads((folder / "figures/index.json").read_text())
    assert figures and all((folder / f"figures/{name}.png").is_file() for name in figures)
    for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()
                   if (folder / "metrics.jsonl").is_file() else []):  # fmt: skip
        assert all(math.isfinite(v) for k, v in row.items() if k == "loss")


@pytest.mark.slow
@each
def test_the_pages_are_clean_and_offline(path, smoke):
    page = (smoke / path.stem / "report.html").read_text()
    assert len(page) < 4_000_000
    assert not re.search(r"<script|<link|src=\"http|@import", page)
    text = re.sub(r"<style.*?</style>|<[^>]+>", "", page, flags=re.S)
    assert not SPAM.search(text), SPAM.search(text)
    executed = nbformat.read(smoke / path.stem / "notebook.ipynb", as_version=4)
    assert "widgets" not in executed.metadata


@pytest.mark.slow
def test_the_console_told_the_story(smoke):
    shown = (smoke.parents[1] / "console.txt").read_text()
    assert shown.rstrip().splitlines()[-1] == str(smoke / "index.html")
    assert all(f"✓ {path.stem}" in shown for path in NOTEBOOKS)
    assert not SPAM.search(shown)
    index = (smoke / "index.html").read_text()
    assert all(f'href="{path.stem}/report.html"' in index for path in NOTEBOOKS)


@pytest.mark.slow
def test_every_link_of_the_pages_resolves(smoke):
    for page in smoke.rglob("*.html"):
        text = page.read_text()
        for href in re.findall(
            r'\bhref="([^"]+)"', re.sub(r"<script.*?</script>", "", text, flags=re.S)
        ):
            path, _, anchor = href.partition("#")
            if path.startswith(("https:", "http:", "data:")):
                continue
            target = (page.parent / path) if path else page
            assert target.is_file(), f"{page.name}: {href}"
            if anchor and "=" not in anchor and target.suffix == ".html":  # with =, a filter
                assert f'id="{anchor}"' in html.unescape(target.read_text()), f"{page}: {href}"


@pytest.mark.slow
@each
def test_every_figure_has_its_files_and_says_what_it_shows(path, smoke):
    folder = smoke / path.stem / "figures"
    for name, text in json.loads((folder / "index.json").read_text()).items():
        assert all((folder / f"{name}.{form}").is_file() for form in ("png", "svg", "csv"))
        assert text["alt"] != text["takeaway"] and len(text["alt"]) > len(text["title"]) + 10


@pytest.mark.slow
@each
def test_a_page_says_nothing_in_names_of_variables(path, smoke):
    page = (smoke / path.stem / "report.html").read_text()
    code = r'<style.*?</style>|<div class="input">.*?</div>\s*</div>\s*</div>\s*</div>'
    code += r'|<(code|pre|math|svg)\b.*?</\1>|<table class="kat-card".*?</table>|<[^>]+>'
    text = html.unescape(re.sub(code, " ", page, flags=re.S))
    found = re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b|\bNaN\b|\d\.\d{6,}|\{'\w+'", text)
    said = (
        r"set_\w+|tool_call|tool_use|multi_turn|im_end|think_o\w+"  # what models are asked and say
    )
    assert not [word for word in found if not re.fullmatch(said, word)]


@pytest.mark.slow
def test_explore_reads_asks_varies_and_leaves_the_run_as_it_was(smoke, tmp_path, monkeypatch):
    def state() -> dict[str, tuple[int, int]]:
        files = sorted(path for path in smoke.rglob("*"))
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    monkeypatch.setenv("KATLAB_ROOT", str(smoke.parents[1]))
    papermill.execute_notebook(
        EXPLORE,
        tmp_path / "explore.ipynb",
        {"run": "smoke", "fork": "varied"},
        progress_bar=False,
        cwd=str(CHECKOUT / "notebooks"),
    )
    assert state() == before
    done = nbformat.read(tmp_path / "explore.ipynb", as_version=4)
    outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
    assert not [o for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    shown = "".join(str(output.get("data", "")) for output in outputs)
    assert shown.count("kat-chat") == 3, "one query in three modes"
    assert "forced by program, think on" in shown and "forced by program, think off" in shown
    assert shown.count("image/png") == 3
    assert re.search(r"With omega 0\.9 instead of [\d.]+, think-on moves by .* \[", shown)
    varied = smoke.parent / "varied"
    assert runs.read(varied / "05_step_srpo")["parameters"]["overrides"] == {"step_srpo.omega": 0.9}
    assert runs.read(varied / "04_cold_start")["taken_from"] == "smoke"


@pytest.mark.slow
@each
def test_every_headline_figure_has_a_label_of_its_own(path, smoke):
    known = tomllib.loads((CHECKOUT / "katlab" / "words.toml").read_text())["figures"]
    labels = known[path.stem.partition("_")[2]]
    for name in runs.read(smoke / path.stem)["headline"]:
        assert name in labels or re.sub(r"\d+$", "#", name) in labels, name
