"""A row of a stage's verdict, and what kind of row it is.

Only a row that can fail is a claim: what holds by construction is a fact, and stands in a table
of its own without a verdict. Claims of the report, own targets and self-checks are counted apart.

Usage:  stage.verdict([Claim("Tokens fall", "-19 %", "-25 %", True, "report")])
"""

from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from katlab import UserError

Kind = Literal["report", "target", "check", "fact"]
KINDS: dict[str, str] = {  # in the order in which they are shown
    "report": "Claims of the report",
    "target": "Own targets",
    "check": "Self-checks",
    "fact": "Facts",
}


@dataclass(frozen=True)
class Claim:
    """What is claimed, what the report gives, what was measured (how often: here, not in `claim`).

    `held` is True, False, or None for not applicable; it is None for every fact.
    """

    claim: str
    reported: object
    measured: object
    held: bool | None
    kind: Kind

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"A claim's kind is one of {', '.join(KINDS)}, not {self.kind!r}.")
        if self.kind == "fact" and self.held is not None:
            raise UserError(f"'{self.claim}' is a fact, so it has no verdict; pass held=None.")

    def withheld(self) -> Self:
        """This row as not applicable: what it measured is shown and not judged."""
        return replace(self, held=None)
