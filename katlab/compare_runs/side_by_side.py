"""`katlab compare`: settings first, then figures with intervals on the difference, then claims.

Usage:  print(text(found));  page(found, page_path(outputs, ["demo", "idea"]))
"""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from katlab.compare_runs.comparison import ADDED, Comparison, Row, disputed, notes
from katlab.compare_runs.pooling import Estimate
from katlab.compare_runs.variants import NOT_RUN
from katlab.lab import compare
from katlab.lab.console import table
from katlab.lab.provenance import now
from katlab.lab.rows import replace

UNITS = "differences of % are in points; * the interval leaves out 0"
MARKS = {True: " ✓", False: " ✗", None: ""}


def interval(one: Estimate | None, signed: bool = False) -> str:
    """An estimate as "91.0 [87.7, 94.0]", a difference with signs."""
    if one is None:
        return NOT_RUN
    form = "+.1f" if signed else ".1f"
    value, low, high = (
        format(x, form).replace("100.0", "100") for x in (one.value, one.low, one.high)
    )
    return f"{value} [{low}, {high}]".replace("-", "−")


def valued(row: Row) -> str:
    """The value of a row; what RL adds has signs, since it is a difference."""
    return interval(row.value, signed=row.group == ADDED)


def marked(row: Row) -> str:
    """The difference of a row with its marks: * leaves out zero, † is not paired."""
    if row.change is None:
        return ""
    marks = "*" * row.change.apart + "†" * (not row.change.paired)
    return f"{interval(row.change, signed=True)}{marks}"


def over(row: Row) -> str:
    """How many prompts a row rests on."""
    if one := row.change or row.value:
        return str(one.prompts)
    return ""


def spread(row: Row) -> str:
    """The least and the largest seed of a pooled value; "" for one seed."""
    if row.value is None or row.of_seeds < 2:
        return ""
    return "{:.1f} to {:.1f}".format(*row.value.spread).replace("-", "−")


def claim_rows(claims: pd.DataFrame, names: Sequence[str]) -> list[list[str]]:
    """Stage, claim, what the report gives, and what each run measured with ✓ held or ✗ not held."""
    shown = claims.assign(shown=claims["measured"] + claims["held"].map(MARKS.__getitem__))
    if shown.empty:
        return []
    keys = ["stage", "claim"]
    wide = shown.pivot_table(index=keys, columns="run", values="shown", aggfunc="first", sort=False)
    wide = wide.reindex(columns=list(names)).fillna(NOT_RUN)
    wide.insert(0, "reported", shown.groupby(keys)["reported"].first())
    wide = wide.reset_index()
    wide = wide.sort_values("stage", kind="stable")
    return [[stage[:2], *rest] for stage, *rest in wide.to_numpy().tolist()]


def text(found: Comparison, everything: bool = False) -> str:
    """The comparison for a terminal; `everything` adds agreed claims and headline figures."""
    names = [run.name for run in found.runs]
    settings = [[key, *row] for key, *row in found.settings.itertuples()]
    width = shutil.get_terminal_size().columns
    parts = ["Settings", table(["", *names], settings)]
    parts += [textwrap.fill(note, width) for note in notes(found)]
    if found.rows:
        parts += ["Stage 06, with 95 % intervals", _figures(found)]
        parts += [UNITS] * (len(found.variants) > 1)
    shown = found.claims if everything else disputed(found.claims, names)
    if len(shown):
        parts += ["Claims" if everything else "Claims on which the runs differ"]
        parts.append(table(["", "claim", "reported", *names], claim_rows(shown, names)))
    agreed = len(claim_rows(found.claims, names)) - len(claim_rows(shown, names))
    if agreed:
        parts.append(f"Claims with the same verdict in every run: {agreed}; --all shows them.")
    if (everything or not found.rows) and len(found.headline):
        rows = _headline(found)
        parts += ["Headline figures of the stages", table(["", "figure", *names], rows)]
    return "\n\n".join(parts)


def frame(found: Comparison) -> pd.DataFrame:
    """The figures as a table of texts, indexed by group, figure and run."""
    apart = len(found.variants) > 1
    first = f"minus {found.variants[0].name}"
    rows = {
        (row.group, row.measure, row.variant): {
            "mean [95 %]": valued(row),
            "least to largest seed": spread(row),
            **({first: marked(row)} if apart else {}),
            "prompts": over(row),
        }
        for row in found.rows
    }
    made = pd.DataFrame.from_dict(rows, orient="index")
    return made.rename_axis(["system, arm", "figure", "run"]) if rows else made


def _figures(found: Comparison) -> str:
    """The rows as a table that fits 80 columns: a group's name in a row of its own."""
    apart = len(found.variants) > 1
    rows, last = [], ("", "")
    for row in found.rows:
        if row.group != last[0]:
            rows.append([row.group, *[""] * (3 + apart)])
        named = "" if (row.group, row.measure) == last else f"  {row.measure}"
        last = row.group, row.measure
        rows.append([named, row.variant, valued(row), *[marked(row)] * apart, over(row)])
        if spread(row):
            rows.append(["", "  seeds", spread(row), *[""] * (1 + apart)])
    head = ["", "run", "value", *[f"minus {found.variants[0].name}"] * apart, "prompts"]
    return table(head, rows)


def _headline(found: Comparison) -> list[list[str]]:
    """Headline figures under their labels, with their units: stage, figure, a value per run."""
    return [[*key, *row] for key, *row in compare.told(found.headline).itertuples()]


def as_json(found: Comparison) -> dict:
    """The comparison as JSON values: settings, variants, figures, claims, headline."""
    whole = found.claims.astype(object)
    claims = whole.where(whole.notna(), None).to_dict(orient="records")
    return {
        "settings": found.settings.to_dict(orient="index"),
        "variants": [
            {"name": v.name, "runs": [r.name for r in v.runs], "seeds": v.seeds}
            for v in found.variants
        ],
        "notes": notes(found),
        "figures": [asdict(row) for row in found.rows],
        "claims": claims,
        "headline": {
            f"{stage}.{key}": row.where(row.notna(), None).to_dict()
            for (stage, key), row in found.headline.astype(object).iterrows()
        },
    }


def page_path(outputs: Path, names: Sequence[str]) -> Path:
    """Where the page of a comparison lies: beside the runs, in none of them."""
    return outputs / f"compare-{'-'.join(dict.fromkeys(names))}.html"


def page(found: Comparison, path: Path) -> Path:
    """Write the comparison as a page that links to the runs' own."""
    from katlab.lab.display import html

    names = [run.name for run in found.runs]
    groups: dict[str, list[dict]] = {}
    for row in found.rows:
        shown = {"row": row, "value": valued(row), "spread": spread(row), "over": over(row)}
        shown["change"] = marked(row)
        groups.setdefault(row.group, []).append(shown | {"bar": _bar(row, found.rows)})
    made = html(
        "compare",
        when=now()[:16].replace("T", " "),
        names=names,
        pages=[name for name in names if (path.parent / name / "index.html").is_file()],
        first=found.variants[0].name,
        units=UNITS,
        apart=len(found.variants) > 1,
        settings=found.settings.itertuples(),
        notes=notes(found),
        groups=groups,
        disputed=claim_rows(disputed(found.claims, names), names),
        claims=claim_rows(found.claims, names),
        headline=_headline(found),
    )
    replace(path, made)
    return path


def _bar(row: Row, rows: Sequence[Row]) -> dict[str, float] | None:
    """Where low, value and high of a difference lie between 0 and 100; zero is at 50."""
    if row.change is None:
        return None
    same = [one.change for one in rows if one.measure == row.measure and one.change]
    most = max([abs(end) for one in same for end in (one.low, one.high)]) or 1.0
    ends = {"low": row.change.low, "value": row.change.value, "high": row.change.high}
    return {name: 50 + 48 * end / most for name, end in ends.items()}
