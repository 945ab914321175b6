"""A run as one zip for a reviewer: its pages, figures, tables, verdicts, settings, and its student.

Left out: checkpoints but the final one, kernels' logs, executed notebooks (the pages show them),
journals of replies, earlier attempts, files over LARGE. Where a run was made does not matter to its
reader, so folders of this machine are cut off every path and run.json says no host and no process.

    bundle.write(outputs / "demo", Path("demo.zip"))
"""

import json
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from katlab import UserError
from katlab.lab import profiles, records
from katlab.lab.stages import root

LARGE = 20 * 2**20  # bytes
LEFT_OUT = ("checkpoints", "kernel.log", "notebook.ipynb", "progress.json", "replies.jsonl")
WEIGHTS = (".safetensors", ".pt", ".bin")  # what models make for each other
TEXT = (".html", ".json", ".jsonl", ".csv", ".svg", ".md", ".txt", ".toml", ".js", ".css")
OF_THE_MACHINE = ("pid", "host", "command")  # keys of run.json
README = """\
# Run {run}

Open index.html in a browser; nothing is loaded from a network. Each folder is a stage:

    report.html     its page
    run.json        settings, seed, versions, commit        verdict.json   claims, held or not
    figures/        what the page shows, and its data       *.jsonl, *.csv what it made

profile.json has every setting of the run.
{student}
{left_out}"""
STUDENT = "student/ is the final student, as a Hugging Face folder; its README.md is its card."


def write(run: Path, out: Path, model_only: bool = False) -> Path:
    """Write the zip (or a folder, where `out` does not end in .zip) and return its path.

    Raises UserError where the run, its pages or its student are not there, or `out` is already.
    """
    from katlab.export import student  # torch and transformers take seconds

    if out.exists():
        raise UserError(f"{out} is there already; remove it or give another --out.")
    folders = records.stage_folders(run)
    if not model_only and not (run / "index.html").is_file():
        raise UserError(f"Run '{run.name}' has no pages yet; run: katlab report {run.name}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as made:
        top = Path(made) / run.name
        has_student = student.finished(run)
        if has_student or model_only:
            folder = top if model_only else top / "student"
            student.write(run, folder)
            put(folder / "README.md", (folder / "README.md").read_bytes(), places(run))
        if not model_only:
            _pages(run, folders, top, has_student)
        if out.suffix == ".zip":
            _zip(top, Path(made) / "whole.zip")
            os.replace(Path(made) / "whole.zip", out)
        else:
            os.replace(top, out)
    return out


def _pages(run: Path, folders: Iterable[Path], top: Path, has_student: bool) -> None:
    record = records.read(next(iter(folders)))
    parameters = record["parameters"]
    settings = profiles.table(parameters["profile"], parameters["overrides"])
    hidden = places(run)
    large = []
    files = [path for path in run.iterdir() if path.is_file()]
    files += [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        inside = path.relative_to(run)
        if {*LEFT_OUT} & {*inside.parts} or path.name.startswith(".") or path.suffix in WEIGHTS:
            continue
        if path.stat().st_size > LARGE:
            large.append(f"{inside} ({path.stat().st_size >> 20} MiB)")
            continue
        put(top / inside, path.read_bytes(), hidden)
    text = json.dumps(parameters | {"settings": settings}, indent=1)
    put(top / "profile.json", text.encode(), hidden)
    said = README.format(
        run=run.name,
        student=STUDENT if has_student else "The run has no finished student of stage 05.",
        left_out=f"Left out for their size: {', '.join(large)}.\n" if large else "",
    )
    put(top / "README.md", said.encode(), hidden)


def put(path: Path, content: bytes, hidden: re.Pattern) -> None:
    """Write a file of a run elsewhere, without what names this machine (`places`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in TEXT:
        text = content.decode("utf-8", "surrogateescape")
        if path.name == "run.json":
            record = {k: v for k, v in json.loads(text).items() if k not in OF_THE_MACHINE}
            text = json.dumps(record, indent=1) + "\n"
        content = hidden.sub("", text).encode("utf-8", "surrogateescape")
    path.write_bytes(content)


def places(run: Path) -> re.Pattern:
    """What is cut off: the project's folder, the environment's, the user's, the temporary one.

    And the folders of paths that the run was given: a profile, a model, a file of queries. A path
    does not begin within a word, so figures in base64 stay as they are.
    """
    folders = {root(), run.resolve().parent, Path(sys.prefix), Path.home(), Path.cwd()}
    folders |= {Path(tempfile.gettempdir()), profiles.PACKAGE.parent}
    given = {part for text in _given(run) for part in (text, *re.split(r" \+ |:", text))}
    folders |= {Path(text).parent for text in given if Path(text).is_absolute()}
    ordered = sorted({str(f) for f in folders if len(f.parts) > 1}, key=len, reverse=True)
    either = "|".join(map(re.escape, ordered))
    return re.compile(rf"(?:(?<=file://)|(?<![A-Za-z0-9+/]))(?:{either})(?:/|\b)")


def _given(run: Path) -> Iterable[str]:
    for folder in records.stage_folders(run):
        record = records.read(folder)
        parameters = record["parameters"]
        values = profiles.flat(profiles.table(parameters["profile"], parameters["overrides"]))
        for value in (parameters["profile"], *values.values()):
            if isinstance(value, str):
                yield value


def _zip(top: Path, path: Path) -> None:
    """Zip a folder under its own name; weights are stored as they are."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(top.rglob("*")):
            kind = zipfile.ZIP_STORED if file.suffix in WEIGHTS else zipfile.ZIP_DEFLATED
            if file.is_file():
                archive.write(file, file.relative_to(top.parent), kind)
