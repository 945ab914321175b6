"""Why a query has its mode: the rationale that the judge learns to write (section 4.1.1)."""

import re

from katlab.teachers import Responder, ask


def rationalize(rows: list[dict], writer: Responder, words) -> tuple[list[dict], int]:
    """Ask why each row has its mode; return (rows with `judge`, how many contradicted).

    `words` is the profile's [prompts]. A rationale that names no mode or another one is dropped.
    Where the user said which mode, that is the reason, in the words that force a mode in 06.
    """
    told = [row | {"judge": vars(words)[f"forced_{row['mode']}"]} for row in rows if "plain" in row]
    asked = [row for row in rows if "plain" not in row]
    requests = [ask(row, words.rationale.format(mode=row["mode"])) for row in asked]
    kept = [
        row | {"judge": text}
        for row, (text,) in zip(asked, writer.respond(requests), strict=True)
        if set(re.findall(words.rationale_pattern, text)) == {row["mode"]}
    ]
    return told + kept, len(asked) - len(kept)
