"""The claims of stage 04 (report section 4.1): what was learned; what the corpus is, as facts.

stage.verdict(verdict.rows(record, categories, evaluated, words.rationale_pattern))
"""

import pandas as pd

from katlab.intervals import bootstrap, percent
from katlab.lab import Claim
from katlab.samples import judge_agrees

FORMED, ACCURACY = 0.9, 0.2  # below either, nothing is said about behaviour


def rows(
    record: dict[str, float], categories: int, evaluated: pd.DataFrame, names_mode: str
) -> list[Claim]:
    """`record` is what `stage.run` returns; `categories` are those of the corpus.

    `evaluated` are the student's held-out samples, `names_mode` as in `samples.judge_agrees`. Where
    fewer than `FORMED` are well formed or fewer than `ACCURACY` right, no claim is made about what
    it decides and says.
    """
    rate, formed, ratio = (record[key] for key in ("think_on_rate", "well_formed", "on_to_off"))
    agrees = evaluated.assign(agrees=judge_agrees(evaluated, names_mode))
    decided = agrees["agrees"].notna().any()
    named = bootstrap(agrees, "agrees") if decided else (0.0, 0.0, 0.0)
    behaviour = [
        Claim(
            "Think-on rate of the cold start",
            "~90 %; 70–95 % (ours)",
            f"{rate:.1%}",
            0.7 <= rate <= 0.95,
            "target",
        ),
        Claim(
            "The cold start's judge names the mode it takes",
            "≥ 95 % (ours)",
            percent(named),
            named[0] >= 0.95,
            "target",
        ),
    ]
    if not (formed >= FORMED and record["accuracy"] >= ACCURACY):
        behaviour = [claim.withheld() for claim in behaviour]
    return [
        *behaviour,
        Claim("Well-formed outputs", "≥ 98 % (ours)", f"{formed:.1%}", formed >= 0.98, "target"),
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
