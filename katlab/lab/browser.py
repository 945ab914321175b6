"""Every reply of a run on one page that filters: rollouts.html, offline, in plain JavaScript.

A stage offers a JSONL file of rows and one of their queries; the page has exactly those rows, of
all stages that offer some. Rows are in columns, each a list of distinct values and of places in it,
as JSON in a script tag. The state of the filters is the fragment of the address, to share a view.

Usage:  browser.offer(stage, "rollouts.jsonl", "candidates.jsonl", columns, flags)
        browser.page(outputs / "demo")
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from markupsafe import Markup

from katlab.lab.provenance import now
from katlab.lab.records import stage_folders
from katlab.lab.rows import read_jsonl, replace
from katlab.lab.runs import StageRun

OFFER, PAGE = "browser.json", "rollouts.html"
OWN = ("id", "sample", "step", "correct", "reason", "tokens")  # columns that every page knows
MOST = 40_000_000  # characters of parts on a page; beyond, long parts lose their middle
SHORTER = (100_000, 20_000, 5_000, 1_000, 200)


@dataclass(frozen=True)
class Columns:
    """Which columns of the rows mean what: name (of a column) to label.

    `parts` are texts with NAME_tokens beside them, `facets` are chosen from a list, `numbers` are
    shown, and `shares` are (column, value) pairs whose share stands in the summary. Every row may
    have id, sample, step, correct (true, false, null), reason, tokens, problem and completion.
    """

    parts: tuple[str, ...]
    facets: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)
    shares: dict[str, tuple[str, str]] = field(default_factory=dict)


def offer(
    stage: StageRun,
    rows: str,
    queries: str,
    columns: Columns,
    flags: Mapping[str, Sequence[int]],
    *,
    constants: Mapping[str, object] | None = None,
    pair: Sequence[str] = (),
    fragment: str = "",
) -> None:
    """Leave browser.json: the page of the run then has the rows of stage.dir/rows.

    `flags` name row numbers, `constants` fill columns that the rows leave out, `pair` are the two
    systems that "before and after" sets side by side, `fragment` is what the stage's link opens.
    """
    given = {"rows": rows, "queries": queries, "columns": asdict(columns), "flags": flags}
    given |= {"constants": constants or {}, "pair": pair, "fragment": fragment}
    stage.write(OFFER, given)


def link(folder: Path) -> str:
    """The address of a stage's rows from its own page, "" if it offers none."""
    path = folder / OFFER
    if not path.is_file():
        return ""
    return f"../{PAGE}#{json.loads(path.read_text(encoding='utf-8'))['fragment']}"


def page(run: Path) -> Path | None:
    """Write rollouts.html of a run folder; None if no stage of it offers rows."""
    from katlab.lab.display import html

    folders = [folder for folder in stage_folders(run) if (folder / OFFER).is_file()]
    if not folders:
        return None
    data = collect(folders)
    options = {
        name: sorted({value for value in data["columns"][name]["values"] if value is not None})
        for name in data["facets"]
    }
    steps = [value for value in data["columns"]["step"]["values"] if value is not None]
    text = html(
        "browser",
        when=now()[:16].replace("T", " "),
        run=run.name,
        stages=folders,
        data=script(data),
        options=options,
        steps=(min(steps), max(steps)) if steps else None,
        **{key: data[key] for key in ("facets", "flags", "pair", "rows", "cut")},
    )
    replace(run / PAGE, text)
    return run / PAGE


def collect(folders: Sequence[Path]) -> dict:
    """The data of the page: columns of all rows, their queries, and what the columns mean."""
    rows: list[dict] = []
    data: dict = {"facets": {}, "numbers": {}, "shares": {}, "flags": {}, "queries": {}, "pair": ()}
    parts: list[str] = []
    for folder in folders:
        given = json.loads((folder / OFFER).read_text(encoding="utf-8"))
        for name, where in given["flags"].items():
            data["flags"].setdefault(name, []).extend(len(rows) + place for place in where)
        parts += [name for name in given["columns"].pop("parts") if name not in parts]
        for kind, named in given["columns"].items():
            data[kind] |= named
        rows += [given["constants"] | row for row in read_jsonl(folder / given["rows"])]
        data["queries"] |= {row["id"]: asked(row) for row in read_jsonl(folder / given["queries"])}
        data["pair"] = given["pair"] or data["pair"]
    used = {row["id"] for row in rows}
    data["queries"] = {name: text for name, text in data["queries"].items() if name in used}
    cut = room([len(row.get(name) or "") for row in rows for name in parts])
    texts = [*parts, "completion"]
    names = [*OWN, *data["facets"], *data["numbers"], *(f"{name}_tokens" for name in parts)]
    columns = {name: [finite(row.get(name)) for row in rows] for name in dict.fromkeys(names)}
    for row in rows:  # a well-formed completion is its parts
        row["completion"] = row.get("completion") if row.get("problem") else None
    columns |= {name: [shortened(row.get(name), cut) for row in rows] for name in texts}
    packed = {name: distinct(values) for name, values in columns.items()}
    return data | {"rows": len(rows), "parts": parts, "columns": packed, "cut": cut}


def asked(row: dict) -> list[str]:
    """The text of a query and what it expects, for a reader."""
    said = [
        f"{message['role']}: {_text(message.get('content') or message.get('tool_calls') or '')}"
        for message in row["messages"]
    ]
    only_user = len(said) == 1 and said[0].startswith("user: ")
    text = said[0].removeprefix("user: ") if only_user else "\n".join(said)
    return [text, _text(row.get("reference", ""))]


def distinct(values: list) -> dict[str, list]:
    """A column as its distinct values and the place of each row's value among them."""
    places: dict = {}
    index = [places.setdefault((type(value), value), len(places)) for value in values]
    return {"values": [value for _, value in places], "index": index}


def room(lengths: Sequence[int]) -> int | None:
    """How many characters a part may have so that all fit the page; None if none has to be cut."""
    if sum(lengths) <= MOST:
        return None
    fits = (most for most in SHORTER if sum(min(n, most) for n in lengths) <= MOST)
    return next(fits, SHORTER[-1])


def shortened(text: str | None, most: int | None) -> str | None:
    """A text without its middle where it is longer than `most` characters."""
    if text is None or most is None or len(text) <= most:
        return text
    left_out = len(text) - most
    return f"{text[: most // 2]}\n… {left_out} characters …\n{text[len(text) - most // 2 :]}"


def finite(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def script(data: dict) -> Markup:
    """Data as JSON that nothing inside can end the script tag of."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
