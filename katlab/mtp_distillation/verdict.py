"""The claims of stage 03 (report section 3.3): what MTP adds, and what the later stages need.

stage.verdict(verdict.rows(gain, share, levels))
"""

import pandas as pd

from katlab.intervals import points
from katlab.lab import Claim

FLOOR, GAP = 0.85, 0.4  # accuracy of the easier side; what a thought must be worth at the hardest
ACCURACY = 0.2  # below it with thinking forced, agreeing drafts say nothing


def rows(gain: tuple[float, float, float], acceptance: float, levels: pd.DataFrame) -> list[Claim]:
    """`gain` of MTP+KD over KD with its interval; `levels` is accuracy by difficulty x arm.

    `acceptance` is the share of second-token drafts that are the student's own choice; of a student
    that is hardly ever right it is not judged.
    """
    on, easy = levels["on"].mean(), levels["off"].iloc[0]
    gap = levels["on"].iloc[-1] - levels["off"].iloc[-1]
    most, few = "≥ 85 % (ours)", "85-90 % (DeepSeek-V3)"
    return [
        Claim(
            "MTP+KD over KD", "about +5 % (section 3.3)", points(gain), gain[0] >= 0.05, "report"
        ),
        Claim(
            "Second-token acceptance",
            few,
            f"{acceptance:.0%}",
            acceptance >= FLOOR if on >= ACCURACY else None,
            "target",
        ),
        Claim("Accuracy forced on, all difficulties", most, f"{on:.0%}", on >= FLOOR, "target"),
        Claim("Accuracy forced off, easiest", most, f"{easy:.0%}", easy >= FLOOR, "target"),
        Claim(
            "Forced on over forced off, hardest",
            "≥ 40 points (ours)",
            f"{100 * gap:.0f} points",
            gap >= GAP,
            "target",
        ),
    ]
