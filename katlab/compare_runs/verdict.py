"""The rows of stage 09: facts, since what it counts are the claims of other stages.

stage.verdict(verdict.rows(counts))
"""

from katlab.lab import Claim


def rows(counts: dict[str, float]) -> list[Claim]:
    """`counts` is what `stage.run` returns."""
    whole = f"{counts['held_everywhere']} of {counts['claims']}"
    return [
        Claim("Claims that hold in every run", "all", whole, None, "fact"),
        Claim("Seeds compared", "not stated", counts["seeds"], None, "fact"),
    ]
