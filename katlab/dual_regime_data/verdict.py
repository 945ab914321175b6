"""The rows of stage 02's verdict: one check that can fail, and what the corpus is by construction.

stage.verdict(verdict.rows(record, graded))
"""

from collections.abc import Sequence

from katlab.lab import Claim


def rows(record: dict[str, float], graded: Sequence[bool | None]) -> list[Claim]:
    """`record` is what `stage.run` returns; `graded` are the corpus's answers, graded anew."""
    passed = sum(ok is True for ok in graded)
    all_pass = f"{passed} of {len(graded)}"
    agree = record.get("tag_agreement")
    tags = "the labels themselves, no tagger" if agree is None else f"{agree:.1%}"
    return [
        Claim("Rows pass when graded again", "all", all_pass, passed == len(graded), "check"),
        *(
            Claim(fact, reported, measured, None, "fact")
            for fact, reported, measured in (
                ("Think-on share of Stage 1, by tag", "34.8 %", f"{record['think_on_share']:.1%}"),
                ("Kept of the think-off queries asked", "–", f"{record['kept_off']:.0%}"),
                ("Kept of the think-on queries asked", "–", f"{record['kept_on']:.0%}"),
                ("Tags agree with the generator", "–", tags),
                ("Rows", "~10M", f"{record['rows']:,}"),
            )
        ),
    ]
