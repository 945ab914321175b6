"""What a stage's results depend on, as one hash: unchanged means it need not run again.

It covers the notebook (code and prose, not outputs), its parameters, the profile values that the
stage may read (its own section and the sections that belong to no stage), the source of its
module and of every katlab module reached from there by imports, the shipped data, files and
folders that a profile value names (folders by names and sizes), and the fingerprints of its
upstream stages. Deliberately outside: katlab.lab (it runs and draws, the
values it passes on are covered), the run's name, and library versions (run.json records them).

Usage:  fingerprint.of("05_step_srpo", parameters, upstream={"04_cold_start": "3f2a..."})
"""

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

import katlab
from katlab.lab import profiles, stages

PACKAGE = Path(katlab.__file__).parent


def of(name: str, parameters: dict, upstream: dict[str, str]) -> str:
    """The fingerprint (16 hex digits) of a stage run with these notebook parameters."""
    digest = hashlib.sha256()
    kept = {k: v for k, v in parameters.items() if k not in ("run", "overrides")}
    values = profiles.table(parameters["profile"], parameters["overrides"])
    own = profiles.section(name)
    others = {profiles.section(stage.name) for stage in stages.STAGES} - {own}
    values = {k: v for k, v in values.items() if isinstance(v, dict) and k not in others}
    for part in (kept, values, upstream):
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\0")
    for text in _texts(values):
        digest.update(_named(stages.root() / text).encode())
    source = notebook_source(stages.root() / "notebooks" / f"{name}.ipynb")
    digest.update(source.encode())
    for path in modules(name, source):
        digest.update(path.read_bytes() + b"\0")
    digest.update(_data(stages.root() / "data_samples").encode())
    return digest.hexdigest()[:16]


def notebook_source(path: Path) -> str:
    """The cells of a notebook as one text without outputs; '' when there is no such file."""
    if not path.is_file():
        return ""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(f"#%% {cell['cell_type']}\n{''.join(cell['source'])}\n" for cell in cells)


def modules(name: str, source: str) -> list[Path]:
    """Source files of the katlab modules behind a stage, found by reading imports (nothing runs).

    `source` is the text of `notebook_source`; the stage's own module counts even if not imported.
    """
    code = "\n".join(
        cell.partition("\n")[2] for cell in source.split("#%% ") if cell.startswith("code")
    )
    own = [f"katlab.{stage.module}.stage" for stage in stages.STAGES if stage.name == name]
    waiting = own + _imports(_parse(code), "katlab")
    found: dict[str, Path] = {}
    while waiting:
        module = waiting.pop()
        path = _source_file(module)
        if path is None or module in found or module == "katlab" or _is_lab(module):
            continue
        found[module] = path
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting += _imports(_parse(path.read_text(encoding="utf-8")), package)
        waiting.append(module.rpartition(".")[0])
    return [found[module] for module in sorted(found)]


def _is_lab(module: str) -> bool:
    return f"{module}.".startswith("katlab.lab.")


def _parse(code: str) -> ast.Module:
    lines = (line for line in code.splitlines() if not line.lstrip().startswith("%"))
    return ast.parse("\n".join(lines))


def _imports(tree: ast.Module, package: str) -> list[str]:
    """Dotted names of everything under katlab that a module's import statements may mean."""
    hits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            hits += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, node.module or ""] if node.level else [node.module or ""])
            base = base.strip(".")
            hits += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [hit for hit in hits if hit.split(".")[0] == "katlab"]


def _source_file(module: str) -> Path | None:
    base = PACKAGE.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _texts(values: dict) -> list[str]:
    """Every text value of nested tables."""
    nested = [text for v in values.values() if isinstance(v, dict) for text in _texts(v)]
    return nested + [value for value in values.values() if isinstance(value, str) and value]


def _named(path: Path) -> str:
    """What a path holds: a file's hash, a folder's names and sizes, '' if it is no path."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return ""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return repr([(str(p.relative_to(path)), p.stat().st_size) for p in files])


@cache
def _data(folder: Path) -> str:
    """Hash of the shipped data files; read once a process (12 MB at most)."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()
