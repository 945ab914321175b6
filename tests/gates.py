"""Samples of made-up systems, good and broken, as stage 06 has them: nothing is drawn at random.

Thinking is right everywhere, a direct answer up to difficulty 3; a thought costs 40 tokens. The
good model thinks where it must, says so, and its cold start thinks on half of the easy ones too.
"""

from collections.abc import Callable

import pandas as pd

from katlab import arms
from katlab.tasks.nano import world

PROMPTS = 300
NAMES_MODE = "think (on|off)"
CHEAP, DEAR = 20, 60  # tokens of a response without and with a thought


def level(i: int) -> int:
    return i // 6 % 5 + 1


def knows(i: int) -> bool:
    return level(i) > 3


def hesitates(i: int) -> bool:
    return knows(i) or i // 30 % 2 == 0


def coin(i: int) -> bool:
    return i // 30 % 5 < 2  # the same 40 % in every cell


def always(i: int) -> bool:
    return True


def never(i: int) -> bool:
    return False


def sample(system: str, arm: str, i: int, on: bool, turn: int = 0) -> dict:
    mode = "on" if on else "off"
    said = f"think {mode}."
    return {
        "id": f"q{i}",
        "cluster": f"problem {i}",
        "category": world.CATEGORIES[i % 6],
        "difficulty": level(i),
        "system": system,
        "arm": arm,
        "sample": turn,
        "mode": mode,
        "problem": None,
        "correct": on or level(i) <= 3,
        "tokens": DEAR if on else CHEAP,
        "judge_tokens": 8,
        "thought_tokens": 40 if on else 0,
        "answer_tokens": 3,
        "judge": said,
        "answer": "7",
        "completion": f"{said}\n</judge>\n\n<think_{mode}>\n<answer>\n7\n</answer>",
        "p_on": (0.9 if on else 0.1) if arm == "auto" else None,
        "by length": 0.5,
        "by operators": 0.5,
        "by category x length": 0.5,
    }


def gated(final: Callable[[int], bool] = knows) -> pd.DataFrame:
    """All systems' samples; the final model thinks where `final` says so."""
    rows = [sample("base", "free", i, hesitates(i)) for i in range(PROMPTS)]
    for system, gate in (("cold start", hesitates), ("final", final)):
        for i in range(PROMPTS):
            rows.append(sample(system, "auto", i, gate(i)))
            rows += [sample(system, m, i, m == "on", t) for m in ("on", "off") for t in (0, 1)]
    for system, mode in (("teacher on", "on"), ("teacher off", "off")):
        rows += [sample(system, mode, i, mode == "on") for i in range(PROMPTS)]
    frame = pd.DataFrame(rows)
    frame.loc[frame["system"] == "teacher on", "tokens"] = DEAR + 10
    frame["correct"] = frame["correct"].astype(object)
    return arms.with_flags(frame)


def of_final(frame: pd.DataFrame, *arms_: str) -> pd.Series:
    return frame["system"].eq("final") & frame["arm"].isin(arms_ or arms.ARMS)


def swapped_judge() -> pd.DataFrame:
    """It decides as well as ever and says the opposite."""
    frame = gated()
    at = of_final(frame, "auto")
    turned = frame["mode"].map({"on": "think off.", "off": "think on."})
    frame.loc[at, "judge"] = turned[at]
    frame.loc[at, "completion"] = turned[at] + "\n</judge>\n\n<think_" + frame["mode"][at] + ">"
    return frame


def malformed(problem: str, share: int = 2) -> pd.DataFrame:
    """Every `share`-th of its outputs has a format problem, and so no answer."""
    frame = gated()
    at = of_final(frame) & frame["id"].str[1:].astype(int).mod(share).eq(0)
    frame.loc[at, ["problem", "correct"]] = [problem, False]
    if problem == "missing decision":
        frame.loc[at & frame["arm"].eq("auto"), "mode"] = None
    return arms.with_flags(frame)


def damaged(mode: str, share: int = 10) -> pd.DataFrame:
    """One in `share` of its outputs of a mode, right before, is wrong."""
    frame = gated()
    number = frame["id"].str[1:].astype(int)
    at = of_final(frame) & frame["mode"].eq(mode) & number.floordiv(30).mod(share).eq(0)
    frame.loc[at, "correct"] = False
    return frame


def wordy() -> pd.DataFrame:
    """It decides well and writes twice as much."""
    frame = gated()
    frame.loc[of_final(frame, "auto"), "tokens"] *= 2
    return frame


def thinks_in_the_open() -> pd.DataFrame:
    """It says think-off and works in the answer."""
    frame = gated()
    frame.loc[of_final(frame, "auto") & frame["mode"].eq("off"), "answer"] = "3+4=7, so 7"
    return frame


def ignorant() -> pd.DataFrame:
    """Well-formed, cheap, and hardly ever right."""
    frame = gated(never)
    frame.loc[of_final(frame), "correct"] = False
    return frame
