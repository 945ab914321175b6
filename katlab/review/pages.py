"""A review's folder: summary.json, and the pages and figures of its runs as far as there is room.

It is made to be committed, so it stays under `LIMIT`: 05 and 06 of every run come first, then the
whole of the first run, then the rest. A link to what found no room is plain text. No weights, no
logs, no rows of samples, no folders of this machine.

    pages.write(chosen, outputs / "reviews" / "nano")
"""

import json
import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path

from katlab import UserError
from katlab.compare_runs.variants import Run
from katlab.export import bundle
from katlab.lab import records
from katlab.review import summary
from katlab.review.accepted import Chosen

LIMIT = 67 * 10**5  # bytes of all files; in whole blocks of a disk it stays under 8 MB
ROOM = 10**5  # of it, for summary.json and README.md
FIRST = ("05_step_srpo", "06_evaluation")  # the stages that every run shows
SMALL = ("run.json", "verdict.json", "summary.json")
LINK = re.compile(r'(<a\b[^>]*?)\shref="(?![a-z]+:|#)([^"#?]+)[^"]*"')
README = """\
# Review of {runs}

summary.json is written by `katlab review` from the files of these runs; nothing in it is typed.
{tuned}
| run | seed | prompts | pages |
|---|---|---|---|
{rows}

In it {rule}.
Shares are 0 to 1; accuracy and tokens are a mean and its 95 % interval over seeds and problems.
`twins` counts evaluated queries that stand, names aside, in what the stages trained on; what the
base and the teachers were trained on is no file of a run. Leakage is by how many tokens answers are
longer where the model was told not to think.
{left_out}"""


def write(chosen: Chosen, out: Path) -> Path:
    """Write the folder and return its path; UserError where it is there already."""
    if out.exists():
        raise UserError(f"{out} is there already; remove it or give another --out.")
    made = summary.of(chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        top = Path(folder) / out.name
        text = json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        places = bundle.places(chosen.reported[0].folder)
        bundle.put(top / "summary.json", text.encode(), places)
        left = _copy(chosen.reported, top)
        (top / "README.md").write_text(_readme(chosen, made, top, left), encoding="utf-8")
        os.replace(top, out)
    return out


def _copy(runs: list[Run], top: Path) -> list[Path]:
    """Copy what finds room, the most telling first; returns what does not."""
    offered = {path: _worth(path, run, runs[0]) for run in runs for path in _files(run)}
    chosen: set[Path] = set()
    left, room = [], LIMIT - ROOM
    for path in sorted(offered, key=lambda path: offered[path]):
        size = path.stat().st_size
        chosen.add(path) if size <= room else left.append(path)
        room -= size if path in chosen else 0
    for run in runs:
        hidden = bundle.places(run.folder)
        for path in (p for p in sorted(chosen) if p.is_relative_to(run.folder)):
            content = path.read_bytes()
            if path.suffix == ".html":
                content = _linked(content.decode("utf-8"), path.parent, chosen).encode("utf-8")
            bundle.put(top / run.name / path.relative_to(run.folder), content, hidden)
    return left


def _files(run: Run) -> list[Path]:
    found = [path for path in run.folder.glob("*.html")]
    for stage in records.stage_folders(run.folder):
        found += [p for p in (stage / "report.html", *map(stage.joinpath, SMALL)) if p.is_file()]
        found += sorted((stage / "figures").glob("*.*"))
    return found


def _worth(path: Path, run: Run, first: Run) -> tuple:
    """Where a file stands in the order of what is copied."""
    inside = path.relative_to(run.folder)
    if path.suffix in (".json", ".csv"):
        rank = 0
    elif path.name == "report.html" and inside.parts[0] in FIRST:
        rank = 1
    elif path.suffix == ".html":
        rank = 2 if run is first else 3
    elif path.suffix == ".png":
        rank = 4 if inside.parts[0] in FIRST else 5
    else:
        rank = 6
    return rank, len(inside.parts), run is not first, inside.parts


def _linked(text: str, folder: Path, chosen: Collection[Path]) -> str:
    """A page whose links to files that were not copied are plain text."""

    def checked(link: re.Match) -> str:
        target = Path(os.path.normpath(folder / link[2]))
        return link[0] if target in chosen else link[1]

    return LINK.sub(checked, text)


def _readme(chosen: Chosen, made: dict, top: Path, left: list[Path]) -> str:
    rows = []
    for run in chosen.reported:
        pages = [
            top / run.name / "index.html",
            *(top / run.name / s / "report.html" for s in FIRST),
        ]
        links = [
            f"[{'all' if page.name == 'index.html' else page.parent.name[:2]}]"
            f"({page.relative_to(top)})"
            for page in pages
            if page.is_file()
        ]
        n = made["n_by_seed"][str(run.seed)]
        rows.append(f"| {run.name} | {run.seed} | {n} | {', '.join(links)} |")
    tuned = "\n**Settings were chosen while looking at these seeds.**\n" * made["tuned_on_these"]
    kinds = sorted({path.suffix for path in left})
    more = f"\nLeft out for room: {len(left)} files ({', '.join(kinds)}).\n" * bool(left)
    return README.format(
        runs=", ".join(made["runs"]), tuned=tuned, rows="\n".join(rows), rule=made["claims_rule"],
        left_out=more,
    )  # fmt: skip
