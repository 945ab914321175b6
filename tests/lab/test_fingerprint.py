"""The two fingerprints: what changes numbers or a page, and nothing else."""

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from conftest import CHECKOUT

from katlab.lab import fingerprint, profiles, stages

STAGES = {stage.name: stage for stage in stages.discover()}
GRADING = ["02_dual_regime_data", "03_mtp_distillation", "04_cold_start", "05_step_srpo"]
GRADING += ["06_evaluation", "07_case_studies"]
VALUES = {"profile": "nano", "run": "a", "seed": 0, "overrides": {}, "report_to": "none"}
PROSE = "data_samples/calibration/in_the_year_2889.txt"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own (package, notebooks, the texts but no weights) to edit."""
    leave = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for name in ("katlab", "notebooks"):
        shutil.copytree(CHECKOUT / name, tmp_path / name, ignore=leave)
    (tmp_path / PROSE).parent.mkdir(parents=True)
    shutil.copy(CHECKOUT / PROSE, tmp_path / PROSE)
    monkeypatch.setenv("KATLAB_ROOT", str(tmp_path))
    monkeypatch.setattr(fingerprint, "PACKAGE", tmp_path / "katlab")
    monkeypatch.setattr(profiles, "FOLDER", tmp_path / "katlab/profiles")
    return tmp_path


def works(**changes) -> dict[str, str]:
    """The work of every stage on its own, as if nothing upstream had changed."""
    return {name: fingerprint.work(name, VALUES | changes, {}) for name in STAGES}


def pages(**changes) -> dict[str, str]:
    return {name: fingerprint.page(name, VALUES | changes, "w") for name in STAGES}


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def append(path: Path, text: str = "\nEDITED = 1\n") -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def edit(path: Path, kind: str, tag: str = "") -> None:
    """Lengthen the last Markdown or code cell of a notebook (or the one with a tag)."""
    book = nbformat.read(path, as_version=4)
    cells = [c for c in book.cells if c.cell_type == kind]
    cells = [c for c in cells if not tag or tag in c.metadata.get("tags", [])]
    cells[-1].source += "\n# edited" if kind == "code" else " Edited."
    nbformat.write(book, path)


@pytest.mark.parametrize("name", STAGES)
def test_prose_and_the_defaults_of_the_parameters_cell_change_nothing(copy, name):
    before = works(), pages()
    edit(copy / "notebooks" / f"{name}.ipynb", "markdown")
    edit(copy / "notebooks" / f"{name}.ipynb", "code", tag="parameters")
    assert (works(), pages()) == before


@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if stage.module])
def test_a_code_cell_changes_the_page_alone(copy, name):
    before = works(), pages()
    edit(copy / "notebooks" / f"{name}.ipynb", "code")
    assert works() == before[0]
    assert changed(before[1], pages()) == {name}


def test_a_stage_without_a_package_works_in_its_notebook(copy):
    before = works()
    edit(copy / "notebooks/00_start_here.ipynb", "code")
    assert changed(before, works()) == {"00_start_here"}


@pytest.mark.parametrize(
    "file",
    [
        "katlab/rewards/choice.py",
        "katlab/rewards/code.py",
        "katlab/rewards/**/inside.py",
        "katlab/rewards/math_worker.py",
    ],
)
def test_what_grades_reaches_every_stage_that_grades(copy, file):
    """Verifiers, the sandbox's inner half and the worker are named by text, not imported."""
    before = works()
    [path] = copy.glob(file)
    append(path)
    assert set(GRADING) <= changed(before, works())


def test_the_template_reaches_every_stage_that_asks_a_student(copy):
    before = works()
    append(copy / "katlab/kat.jinja")
    assert set(GRADING[1:]) <= changed(before, works())


def test_an_edit_of_one_stage_reaches_that_stage_alone(copy):
    for name in ("evaluation", "step_srpo", "cold_start"):
        before = works()
        append(copy / "katlab" / name / "stage.py")
        [own] = [stage for stage in STAGES if profiles.section(stage) == name]
        assert changed(before, works()) == {own}
    before = works()
    append(copy / "katlab/evaluation/routing.py")
    assert changed(before, works()) == {"06_evaluation"}


def test_comments_docstrings_and_layout_change_nothing(copy):
    """A word in a docstring trained the student again."""
    before = works(), pages()
    path = copy / "katlab/evaluation/routing.py"
    text = path.read_text(encoding="utf-8").replace('"""', '"""Mended. ', 1)
    path.write_text(text.replace("\n\n\ndef ", "\n\n\n\n# a comment\ndef "), encoding="utf-8")
    settings = copy / "katlab/step_srpo/settings.py"  # strings behind fields are prose as well
    append(settings, '\n"""Ours."""\n')
    assert (works(), pages()) == before
    path.write_text(path.read_text(encoding="utf-8").replace("0", "1"), encoding="utf-8")
    assert changed(before[0], works()) == {"06_evaluation"}


def test_an_empty_field_that_another_python_has_changes_nothing():
    tree = fingerprint.ast.parse("def f(x):\n    return f'{x!r:>{3}} and {None}'")
    before = fingerprint._dump(tree)
    function = tree.body[0]
    function._fields = (*function._fields, "type_params")  # as from Python 3.12 on
    function.type_params = []
    assert fingerprint._dump(tree) == before
    function.name = "g"
    assert fingerprint._dump(tree) != before


def test_the_file_that_a_setting_chooses_counts_and_no_other(copy):
    before, other = works(), works(overrides={"step_srpo.advantages": "grpo"})
    assert changed(before, other) == {"05_step_srpo"}
    append(copy / "katlab/step_srpo/advantages/grpo.py")
    assert works() == before
    assert changed(other, works(overrides={"step_srpo.advantages": "grpo"})) == {"05_step_srpo"}
    append(copy / "katlab/step_srpo/advantages/hipo.py")
    assert changed(before, works()) == {"05_step_srpo"}


def test_figures_that_only_a_notebook_imports_change_its_page(copy):
    before = works(), pages()
    append(copy / "katlab/scaling_plan/figures.py")
    assert works() == before[0]
    assert "08_scaling_plan" in changed(before[1], pages())


def test_the_lab_itself_is_outside(copy):
    before = works(), pages()
    for path in (copy / "katlab/lab").glob("*.py"):
        append(path)
    append(copy / "katlab/__init__.py")
    append(copy / "katlab/cli/running.py")
    assert (works(), pages()) == before


def test_only_data_that_is_named_counts(copy):
    before = works()
    (copy / "data_samples/mine.jsonl").write_text("{}\n")
    (copy / "data_samples/calibration/another.txt").write_text("x")
    assert works() == before
    append(copy / PROSE)
    assert "01_layer_saturation" in changed(before, works())
    assert "05_step_srpo" not in changed(before, works())


def test_a_value_that_names_a_file_brings_its_content(copy):
    mine = {"overrides": {"model.queries": "data_samples/mine.jsonl"}}
    before = works(**mine)
    (copy / "data_samples/mine.jsonl").write_text("{}\n")
    after = works(**mine)
    assert changed(before, after) == set(STAGES)
    (copy / "data_samples/mine.jsonl").write_text("[]\n")  # as long, and another text
    assert changed(after, works(**mine)) == set(STAGES)
    verifier = {"overrides": {"rewards.mine": "mine.py"}}
    before = works(**verifier)
    (copy / "mine.py").write_text("def check(): ...")
    assert "05_step_srpo" in changed(before, works(**verifier))


def test_a_verifier_that_a_row_names_by_its_path_counts(copy):
    mine = {"overrides": {"model.queries": "mine.jsonl"}}
    (copy / "mine.jsonl").write_text('{"verifier": "verifiers/roman.py"}\n')
    before = works(**mine)
    (copy / "verifiers").mkdir()
    (copy / "verifiers/roman.py").write_text("def verify(answer, reference): ...")
    after = works(**mine)
    assert set(GRADING) <= changed(before, after)
    append(copy / "verifiers/roman.py")
    assert set(GRADING) <= changed(after, works(**mine))


def test_a_folder_counts_by_content_and_large_files_by_size(copy, monkeypatch):
    monkeypatch.setattr(fingerprint, "LARGE", 8)
    (copy / "student/deep").mkdir(parents=True)
    small, large = copy / "student/deep/config.json", copy / "student/weights"
    small.write_bytes(b"12345678")
    large.write_bytes(b"123456789")

    def now() -> str:
        return works(overrides={"model.student": "student"})["05_step_srpo"]

    seen = [now()]
    large.write_bytes(b"987654321")
    assert now() == seen[-1]
    small.write_bytes(b"87654321")
    seen.append(now())
    large.write_bytes(b"9876543210")
    seen.append(now())
    assert len(set(seen)) == 3


def test_values_count_for_the_stages_that_may_read_them(copy):
    before = works()
    assert works(run="b", report_to="wandb") == before
    assert works(profile=str(copy / "katlab/profiles/nano.toml")) == before
    assert changed(before, works(seed=1)) == set(STAGES)
    assert changed(before, works(overrides={"evaluation.prompts": 7})) == {"06_evaluation"}
    trainer = {"step_srpo.trainer.scale_rewards": "none"}
    assert changed(before, works(overrides=trainer)) == {"05_step_srpo"}
    assert changed(before, works(overrides={"lora.r": 4})) == set(STAGES)
    assert changed(before, works(overrides={"prompts.tag": "Tag it, please."})) == set(STAGES)


def test_a_profile_that_code_names_counts_and_nano_is_a_task_as_well(copy):
    before = works()
    append(copy / "katlab/profiles/target-40b.toml", "\n# edited\n")
    assert "08_scaling_plan" in changed(before, works())
    before = works()
    append(copy / "katlab/profiles/nano.toml", "\n# edited\n")
    append(copy / "katlab/profiles/tiny.toml", "\n# edited\n")
    assert works() == before


def test_upstream_work_counts_and_further_parameters_are_the_pages(copy):
    up = fingerprint.work("05_step_srpo", VALUES, {"04_cold_start": "x"})
    assert up == fingerprint.work("05_step_srpo", VALUES, {"04_cold_start": "x"})
    assert up != fingerprint.work("05_step_srpo", VALUES, {"04_cold_start": "y"})
    name = "09_compare_runs"
    before = works(), pages()
    assert works(runs=["a"]) == before[0]
    assert pages(runs=["a"])[name] != before[1][name]


def test_sources_follow_imports_and_names_but_not_the_lab():
    found = fingerprint.sources(["katlab.cold_start.stage"])
    names = {path.relative_to(fingerprint.PACKAGE).as_posix() for path in found}
    assert {"cold_start/stage.py", "cold_start/votes.py", "template.py", "kat.jinja"} <= names
    assert {"rewards/math.py", "rewards/math_worker.py", "rewards/choice.py"} <= names
    assert not any(name.startswith(("lab/", "evaluation/", "cli.py")) for name in names)


def test_stages_are_found_by_their_notebooks_and_packages():
    assert list(STAGES) == sorted(p.stem for p in (CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))
    needs = {profiles.section(name): stage.needs for name, stage in STAGES.items()}
    assert needs["step_srpo"] == ("04_cold_start",)
    assert needs["evaluation"] == ("03_mtp_distillation", "04_cold_start", "05_step_srpo")
    assert [name for name, stage in STAGES.items() if stage.always] == ["09_compare_runs"]
    assert [name for name, stage in STAGES.items() if not stage.module] == ["00_start_here"]
    order = list(STAGES)
    for name, stage in STAGES.items():
        assert all(order.index(need) < order.index(name) for need in stage.needs)


def test_a_stage_reads_only_what_it_says_it_needs():
    """Every upstream folder that a package opens is among its NEEDS."""
    for name, stage in STAGES.items():
        folder = fingerprint.PACKAGE / profiles.section(name)
        read = {
            stage
            for path in folder.glob("**/*.py")
            for stage in re.findall(r'upstream\("(\w+)"\)', path.read_text(encoding="utf-8"))
        }
        assert read <= set(stage.needs), name
