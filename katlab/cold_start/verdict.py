"""The claims of stage 04 (report section 4.1): what was learned; what the corpus is, as facts.

stage.verdict(verdict.rows(record, categories))
"""

from katlab.lab import Claim


def rows(record: dict[str, float], categories: int) -> list[Claim]:
    """`record` is what `stage.run` returns; `categories` are those of the corpus."""
    rate, formed, ratio = (record[key] for key in ("think_on_rate", "well_formed", "on_to_off"))
    return [
        Claim("Well-formed outputs", "≥ 98 % (ours)", f"{formed:.1%}", formed >= 0.98, "target"),
        Claim(
            "Think-on rate of the cold start",
            "~90 %; 70–95 % (ours)",
            f"{rate:.1%}",
            0.7 <= rate <= 0.95,
            "target",
        ),
        Claim(
            "Votes reach think-on : think-off",
            "2 : 1",
            f"{ratio:.2f} : 1",
            1.8 <= ratio <= 2.2,
            "check",
        ),
        *(
            Claim(fact, reported, measured, None, "fact")
            for fact, reported, measured in (
                ("Random mode", "1 %", f"{record['random_mode_share']:.1%}"),
                ("Categories", "6", categories),
                (
                    "Rationales written that name their mode",
                    "–",
                    f"{1 - record['contradictions']:.1%}",
                ),
            )
        ),
    ]
