"""Domain and difficulty of each query, as the tagger reads it (report section 3.2)."""

import re

from katlab.teachers import Responder, ask, split_thought


def tag(rows: list[dict], tagger: Responder, request: str, pattern: str) -> list[dict]:
    """Add `tags` {domain, level} to each row as the tagger reads it; unreadable tags drop a row.

    `pattern` is a regular expression with the groups domain and level. Nobody is asked where
    `request` is "": the labels that the queries came with are their tags.
    """
    if not request:
        return [
            row | {"tags": {"domain": row["category"], "level": row["difficulty"]}} for row in rows
        ]
    replies = tagger.respond([ask(row, request) for row in rows])
    found = [re.search(pattern, split_thought(reply)[1]) for (reply,) in replies]
    return [
        row | {"tags": {"domain": match["domain"].lower(), "level": int(match["level"])}}
        for row, match in zip(rows, found, strict=True)
        if match
    ]


def agreement(rows: list[dict]) -> float:
    """Share of tags that equal the labels that the queries came with."""
    same = [r["tags"] == {"domain": r["category"], "level": r["difficulty"]} for r in rows]
    return sum(same) / len(same)
