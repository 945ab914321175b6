"""`katlab verify FILE.jsonl`: grades a file and prints a table by kind and verdict.

A row is {"kind": ..., "answer": ..., "reference": ...}; `verifier` is read as `kind`, and `kind`
may be the path of your own verifier. A row that cannot be read is listed by its line number with
the reason, and the rest is graded.
Usage: `verify_file("data_samples/verify/answers.jsonl")`
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from katlab import UserError, jsonl
from katlab.rewards import Verdict, grade, verifier

LABELS = ("correct", "wrong", "unscorable")


def read_rows(path: Path) -> tuple[list[tuple[int, tuple[str, str, Any]]], list[tuple[int, str]]]:
    """([(line number, (kind, answer, reference))], [(line number, what is wrong with it)])."""
    rows, bad = [], []
    for number, row in jsonl.lines(path, "answers").items():
        try:
            if isinstance(row, str):
                raise UserError(row)
            kind = row.get("kind", row.get("verifier"))
            if not isinstance(kind, str):
                raise UserError('has no kind; add "kind"')
            for name, what in (("answer", str), ("reference", object)):
                if row.get(name) is None:
                    raise UserError(f'has no {name}; add "{name}"')
                if not isinstance(row[name], what):
                    raise UserError(f"has an {name} that is no text; write it as text")
            verifier(kind)
        except UserError as error:
            bad.append((number, str(error)))
        else:
            rows.append((number, (kind, row["answer"], row["reference"])))
    return rows, bad


def table(graded: list[tuple[str, Verdict]]) -> str:
    """Counts by kind and verdict, the share correct of what was scored, and seconds."""
    rows: list[tuple[Any, ...]] = [("kind", "rows", *LABELS, "correct %", "seconds")]
    for name in [*sorted({kind for kind, _ in graded}), "total"]:
        verdicts = [v for kind, v in graded if name in (kind, "total")]
        count = Counter(v.label for v in verdicts)
        scored = count["correct"] + count["wrong"]
        share = f"{100 * count['correct'] / scored:.1f}" if scored else "-"
        seconds = f"{sum(v.seconds for v in verdicts):.2f}"
        rows.append((name, len(verdicts), *(count[label] for label in LABELS), share, seconds))
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{n:{width}}" + "".join(f"{c:>11}" for c in rest) for n, *rest in rows)


def verify_file(path: str | Path, out: str | Path | None = None) -> int:
    """Grades a JSONL file, prints the table, then the bad and the unscorable rows by line number.

    `out`: a JSONL file for the verdicts, one line per graded row. Gives the exit code: 0, or 1 when
    a row was bad or unscorable. Raises UserError when the file does not exist or holds no row, or
    there is no folder for `out`.
    """
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise UserError(f"There is no folder for {out}: make it, or write the verdicts elsewhere.")
    rows, bad = read_rows(Path(path))
    verdicts = grade([row for _, row in rows])
    print(table([(row[0], verdict) for (_, row), verdict in zip(rows, verdicts, strict=True)]))
    if isolations := sorted({v.detail["isolation"] for v in verdicts if "isolation" in v.detail}):
        print(f"code isolation: {', '.join(isolations)}")
    unscorable = [(n, v) for (n, _), v in zip(rows, verdicts, strict=True) if v.correct is None]
    for number, reason in bad:
        print(f"line {number}: not graded, {reason}", file=sys.stderr)
    for number, verdict in unscorable:
        print(f"line {number}: unscorable, {verdict.reason}", file=sys.stderr)
    if out is not None:
        with Path(out).open("w", encoding="utf-8") as file:
            for (number, row), v in zip(rows, verdicts, strict=True):
                said = {"line": number, "kind": row[0], "verdict": v.label, **vars(v)}
                file.write(json.dumps(said, default=repr, skipkeys=True) + "\n")
    return 1 if bad or unscorable else 0
