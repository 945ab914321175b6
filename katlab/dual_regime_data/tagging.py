"""Domain and difficulty of each query, as the tagger reads it (report section 3.2)."""

import re

from katlab.teachers import Responder, ask

TAG = re.compile(r"(code|math|science|general|multi_turn|tool_use), level ([1-5])")


def tag(rows: list[dict], tagger: Responder) -> list[dict]:
    """Add `tags` {domain, level} to each row as the tagger reads it; unreadable tags drop a row."""
    tagged = []
    for row, (reply,) in zip(rows, tagger.respond([ask(r, "Tag it.") for r in rows]), strict=True):
        found = TAG.fullmatch(reply)
        if found:
            tagged.append(row | {"tags": {"domain": found[1], "level": int(found[2])}})
    return tagged


def agreement(rows: list[dict]) -> float:
    """Share of tags that equal the generator's own labels (the nano world knows them)."""
    same = [r["tags"] == {"domain": r["category"], "level": r["difficulty"]} for r in rows]
    return sum(same) / len(same)
