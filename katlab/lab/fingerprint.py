"""What a stage's results depend on, as two hashes: of its work and of the page that shows it.

The work: the stage's package, the seed, the profile values it may read (its own section and those
that belong to no stage, but [seeds]), the source of its stage.py and of every katlab module reached
from there by imports, the files that such a module names by a plain string (a file beside it, with
or without ".py", a file of the project, a shipped profile other than nano), the files and folders
that profile values name (files over 16 MiB inside a folder by name and size; of a JSONL file the
Python files that its rows name as well, of a TOML or JSON file the files that it names; in a sum
such as "procedural:0.6 + hub:mine.toml:0.4" each file; `key = "name"` also names the stage's own
key/name.py), and the work of the stages it needs. The page: the work, the notebook's code without
its parameters cell, the katlab modules that code imports, and the notebook's further parameters.

Outside on purpose: prose (of code, its comments and docstrings), the defaults in the parameters
cell, the run's name, katlab.lab (it runs and draws; the values it passes on are covered) and
library versions (run.json records them). A stage without a stage.py does its work in its notebook,
so its code and imports count as work.

Usage:  wanted = fingerprint.work("05_step_srpo", parameters, {"04_cold_start": "3f2a..."})
        fingerprint.page("05_step_srpo", parameters, wanted)
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from katlab.lab import parameters, profiles, stages
from katlab.lab.profiles import PACKAGE

NAME = re.compile(r"\w[\w./-]{0,200}")  # text that may name a file
LARGE = 16 * 2**20  # bytes; a larger file in a folder counts by name and size


def work(name: str, values: dict, upstream: dict[str, str]) -> str:
    """The fingerprint (16 hex digits) of a stage's work under these notebook parameters.

    `upstream` holds the work fingerprints of the stages it needs. Raises UserError for a mistake
    in the profile or the overrides.
    """
    own, module = profiles.section(name), stages.named(name).module
    table = profiles.table(values["profile"], values["overrides"])
    others = {*profiles.stage_sections(), profiles.SEEDS} - {own}
    table = {k: v for k, v in table.items() if isinstance(v, dict) and k not in others}
    digest = hashlib.sha256(_json(own, values["seed"], table, upstream))
    for text in _texts(table):
        path = stages.root() / text
        for file in (path, *_told(path), *_summed(text)):
            digest.update(_content(file).encode() + b"\0")
    cells = "" if module else notebook_code(name)
    named = table.get(own, {}).items()  # a setting may choose a file of a folder of its own name
    chosen = [f"katlab.{own}.{key}.{text}" for key, text in named if isinstance(text, str)]
    _update(digest, cells, [module, *chosen] if module else [])
    return digest.hexdigest()[:16]


def page(name: str, values: dict, work: str) -> str:
    """The fingerprint of what the notebook shows of finished work."""
    further = {key: value for key, value in values.items() if key not in parameters.COMMON}
    digest = hashlib.sha256(_json(work, further))
    _update(digest, notebook_code(name), [])
    return digest.hexdigest()[:16]


def notebook_code(name: str) -> str:
    """`code` of a stage's notebook; '' when there is no notebook."""
    path = stages.root() / "notebooks" / f"{name}.ipynb"
    return code(path.read_text(encoding="utf-8")) if path.is_file() else ""


def code(notebook: str) -> str:
    """The code cells of a notebook (its JSON) but its parameters, without magics."""
    cells = (
        "".join(cell["source"])
        for cell in json.loads(notebook)["cells"]
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    )
    lines = (line for source in cells for line in source.splitlines())
    return "\n".join(line for line in lines if not line.lstrip().startswith("%"))


def sources(modules: Iterable[str], code: str = "") -> list[Path]:
    """Files behind some modules and a text of code, found by reading them (nothing is run)."""
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files(module)]
    waiting += _leads(code, "katlab", stages.root())
    while waiting:
        path = waiting.pop()
        inside = path.relative_to(PACKAGE).parts if path.is_relative_to(PACKAGE) else ()
        if path in found or inside[:1] in (("lab",), ("__init__.py",)):
            continue
        found.add(path)
        if inside and path.suffix == ".py":
            waiting += _of_module(path, path.stat().st_mtime_ns, stages.root())
    return sorted(found)


@cache
def _of_module(path: Path, changed: int, root: Path) -> tuple[Path, ...]:
    package = ".".join(("katlab", *path.relative_to(PACKAGE).parts[:-1]))
    return tuple(_leads(path.read_text(encoding="utf-8"), package, root, path.parent))


def _leads(code: str, package: str, root: Path, beside: Path | None = None) -> list[Path]:
    """The files of the project that a text of code imports or names."""
    hits: list[Path] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            hits += [path for alias in node.names for path in _files(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            hits += [path for alias in node.names for path in _files(f"{base}.{alias.name}")]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            hits += _named(node.value, root, beside)
    return hits


def _files(dotted: str) -> list[Path]:
    """Source files that importing `katlab.a.b` reads: of a, of a.b, whichever exist."""
    top, *parts = dotted.split(".")
    bases = (
        [PACKAGE.joinpath(*parts[: i + 1]) for i in range(len(parts))] if top == "katlab" else []
    )
    candidates = [
        path for base in bases for path in (base.with_suffix(".py"), base / "__init__.py")
    ]
    return [path for path in candidates if path.is_file()]


def _named(text: str, root: Path, beside: Path | None) -> list[Path]:
    if not NAME.fullmatch(text):
        return []
    candidates = [root / text]
    if beside is not None:
        candidates += [beside / text, beside / f"{text}.py"]
    if text != profiles.SCHEMA:  # nano is the name of a task as well
        candidates.append(profiles.FOLDER / f"{text}.toml")
    return [path for path in candidates if path.is_file()]


def _update(digest, code: str, modules: list[str]) -> None:
    digest.update(code.encode() + b"\0")
    for path in sources(modules, code):
        digest.update(path.name.encode() + b"\0" + _meaning(path, path.stat().st_mtime_ns) + b"\0")


@cache
def _meaning(path: Path, changed: int) -> bytes:
    """A file's bytes; of Python the code alone, without comments, docstrings and layout."""
    if path.suffix != ".py":
        return path.read_bytes()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            body[:] = [one for one in body if not _is_prose(one)] or [ast.Pass()]
    return _dump(tree).encode()


def _dump(node: Any) -> str:
    """`ast.dump` without empty fields, which differ by Python: a run moves between 3.11 and 3.12.

    `ast.unparse` would not do either: 3.12 quotes f-strings in another way.
    """
    if isinstance(node, list):
        return f"[{','.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
    inner = ",".join(f"{name}={_dump(value)}" for name, value in fields)
    return f"{type(node).__name__}({inner})"


def _is_prose(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _json(*parts: object) -> bytes:
    return json.dumps(parts, sort_keys=True).encode()


def _texts(values: Any) -> list[str]:
    """Every text in nested tables and lists that may name a file or a folder."""
    if isinstance(values, str):
        return [values] if values and len(values) < 256 and values.isprintable() else []
    nested = values.values() if isinstance(values, dict) else values
    return [t for v in nested for t in _texts(v)] if isinstance(values, dict | list) else []


def _told(path: Path, seen: tuple[Path, ...] = ()) -> list[Path]:
    """The Python files that rows of a JSONL file name, such as a verifier of their own.

    Of a TOML or JSON file, such as a map of a data set, the files that it names, and theirs.
    """
    if path.suffix not in (".jsonl", ".toml", ".json") or not path.is_file():
        return []
    ending = r"\.py" if path.suffix == ".jsonl" else r"\.(?:py|toml|jsonl?|parquet)"
    text = path.read_text("utf-8", errors="replace")
    named = [
        stages.root() / one for one in sorted(set(re.findall(rf'"([^"\\\n]+{ending})"', text)))
    ]
    if path.suffix == ".jsonl":
        return named
    seen = (*seen, path)
    return [file for one in named if one not in seen for file in (one, *_told(one, seen))]


def _summed(text: str) -> list[Path]:
    """The files that the summands of a text name, and what those name."""
    parts = [part for part in re.split(r" \+ |:", text) if part != text]
    found = [stages.root() / part for part in parts if part.strip()]
    return [file for one in found if one.is_file() for file in (one, *_told(one))]


@cache
def _hash(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _content(path: Path) -> str:
    """What a path holds: a file's hash, hashes (large files: sizes) of a folder, '' if neither."""
    if path.is_file():
        return _hash(path, path.stat().st_mtime_ns)
    if not path.is_dir():
        return ""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    sizes = {p: p.stat().st_size for p in files}
    return repr(
        [(str(p.relative_to(path)), _content(p) if sizes[p] <= LARGE else sizes[p]) for p in files]
    )
