"""Why a query has its mode: the rationale that the judge learns to write (section 4.1.1)."""

import re
from itertools import compress

from katlab.teachers import Responder, ask, split_thought


def explains(text: str, mode: str, words) -> bool:
    """Whether a rationale names this mode and no other, as [prompts] reads it."""
    return set(re.findall(words.rationale_pattern, text)) == {mode}


def rationalize(rows: list[dict], writer: Responder, words) -> tuple[list[dict], list[dict]]:
    """Ask why each row has its mode; return (rows that are explained, rows that are not).

    Both carry the rationale as `judge`; `words` is the profile's [prompts]. Where the user said
    which mode, that is the reason, in the words that force a mode in the evaluation.
    """
    told = [row | {"judge": vars(words)[f"forced_{row['mode']}"]} for row in rows if "plain" in row]
    asked = [row for row in rows if "plain" not in row]
    replies = writer.respond([ask(row, words.rationale.format(mode=row["mode"])) for row in asked])
    texts = [split_thought(reply)[1] for (reply,) in replies]  # a writer may think first
    said = [row | {"judge": text} for row, text in zip(asked, texts, strict=True)]
    fits = [explains(row["judge"], row["mode"], words) for row in said]
    dropped = [row for row, fit in zip(said, fits, strict=True) if not fit]
    return told + list(compress(said, fits)), dropped
