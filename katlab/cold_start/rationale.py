"""Why a query has its mode: the rationale that the judge learns to write (section 4.1.1)."""

import re

from katlab.arms import FORCED
from katlab.teachers import LocalResponder, ask

NAMES_MODE = re.compile(r"think (on|off)")


def rationalize(rows: list[dict], writer: LocalResponder) -> tuple[list[dict], int]:
    """Ask why each row has its mode; return (rows with `judge`, how many contradicted).

    Where the user said which mode, that is the reason, in the words that force a mode in 06.
    """
    told = [row | {"judge": FORCED[row["mode"]]} for row in rows if "plain" in row]
    asked = [row for row in rows if "plain" not in row]
    replies = writer.respond([ask(row, f"Why think {row['mode']}?") for row in asked])
    kept = [
        row | {"judge": text}
        for row, (text,) in zip(asked, replies, strict=True)
        if set(NAMES_MODE.findall(text)) == {row["mode"]}
    ]
    return told + kept, len(asked) - len(kept)
