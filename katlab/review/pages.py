"""A review's folder: summary.json, a page of it, and its runs' pages as far as there is room.

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
from katlab.lab.provenance import now
from katlab.review import cost, summary, tables
from katlab.review.accepted import Chosen

LIMIT = 67 * 10**5  # bytes of all files; in whole blocks of a disk it stays under 8 MB
ROOM = 2 * 10**5  # of it, for summary.json, index.html and README.md
FIRST = ("05_step_srpo", "06_evaluation")  # the stages that every run shows
TUNED = "Settings were chosen while looking at these seeds."
SMALL = ("run.json", "verdict.json", "summary.json")
LINK = re.compile(r'(<a\b[^>]*?)\shref="(?![a-z]+:|#)([^"#?]+)[^"]*"')
README = """\
# Review of {runs}

index.html is this as a page. Both come from summary.json, which `katlab review` writes from the
files of these runs; nothing in it is typed.
{tuned}
{cost}

{table}

| run | seed | prompts | pages |
|---|---|---|---|
{rows}

{notes}
{left_out}"""
NOTES = """\
In summary.json {rule}. n is {n_is}. Shares are 0 to 1; accuracy and tokens are a mean and its \
95 % interval over seeds and problems; null is a score that a system cannot have. "distilled" \
has no gate: it was told to think and told not to, half each. Leakage is by how many tokens \
answers are longer where the model was told not to think. Of the evaluated queries {twins} are \
twins of {twins_of}."""


def write(chosen: Chosen, out: Path) -> Path:
    """Write the folder and return its path; UserError where it is there already."""
    if out.exists():
        raise UserError(f"{out} is there already; remove it or give another --out.")
    made = summary.of(chosen)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        top = Path(folder) / out.name
        left = _copy(chosen.reported, top)
        texts = {
            "summary.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n",
            "README.md": _readme(chosen, made, top, left),
            "index.html": _index(chosen, made, top),
        }
        for name, text in texts.items():
            bundle.put(top / name, text.encode(), bundle.places(chosen.reported[0].folder))
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
        links = ", ".join(f"[{name}]({path})" for name, path in _pages(run, top))
        rows.append(f"| {run.name} | {run.seed} | {made['n_by_seed'][str(run.seed)]} | {links} |")
    kinds = sorted({path.suffix for path in left})
    more = f"\nLeft out for room: {len(left)} files ({', '.join(kinds)}).\n" * bool(left)
    return README.format(
        runs=", ".join(made["runs"]),
        tuned=f"\n**{TUNED}**\n" * made["tuned_on_these"],
        cost=cost.told(made),
        table=tables.text(made),
        rows="\n".join(rows),
        notes=_notes(made),
        left_out=more,
    )


def _index(chosen: Chosen, made: dict, top: Path) -> str:
    """The same as a page, with every system and every claim; nothing is loaded from a network."""
    from katlab.lab.display import html

    return html(
        "review",
        when=now()[:16].replace("T", " "),
        title=f"Review of {', '.join(made['runs'])}",
        tuned=TUNED if made["tuned_on_these"] else "",
        cost=cost.told(made),
        against=tables.against(made),
        head=tables.HEAD,
        systems=tables.systems(made),
        sets=tables.sets(made) if made["sets"] else None,
        claims=tables.claims(made),
        runs=[(run.name, run.seed, _pages(run, top)) for run in chosen.reported],
        notes=_notes(made),
    )


def _pages(run: Run, top: Path) -> list[tuple[str, Path]]:
    """The pages of a run that were copied, by a short name, as the folder's own links."""
    own = top / run.name
    there = {"all": own / "index.html", **{s[:2]: own / s / "report.html" for s in FIRST}}
    return [(name, path.relative_to(top)) for name, path in there.items() if path.is_file()]


def _notes(made: dict) -> str:
    return NOTES.format(
        rule=made["claims_rule"],
        n_is=made["n_is"],
        twins=made["twins"],
        twins_of=made["twins_of"],
    )
