"""Which mode a query needs, by the student's own pass rates (HiPO, arXiv 2509.23967).

The student of stage 03 answers every query `vote_samples` times with each mode forced. The mode
with the higher pass rate wins; where the rates differ by less than `vote_margin`, think-off does.
The shortest right sample of each mode is kept: the winner's becomes the corpus's response.

Deviations: (1) HiPO samples a reasoning model, here the student votes on what it can do itself; (2)
a query without a right sample in the mode that won is left out of the corpus and counted; (3) where
a wish or chance gives a query its mode, that mode's shortest right sample responds, and the mode's
teacher where there is none.

    voted = vote(stage, queries, model, tokenizer); answered, rest = respond(chosen)
"""

import pandas as pd
from transformers import PreTrainedTokenizerBase

from katlab import UserError, arms, template
from katlab.cold_start.votes import pass_rate, some
from katlab.lab import StageRun


def vote(
    stage: StageRun, rows: list[dict], model, tokenizer: PreTrainedTokenizerBase
) -> list[dict]:
    """Add `passed` (pass rates in 0..1), `shortest` (thought and answer, or None) and `mode`.

    Both are by mode; `replies`, `verdicts` (True, False, None) and `forced` (the mode) are what was
    voted on. What cannot be scored is in no rate; a query of which a mode has no rate is left out,
    and UserError says if that leaves none.
    """
    s = stage.settings
    limits = {"off": s.vote_tokens, "on": s.max_new_tokens}
    frames = {
        mode: arms.run_arm(
            stage,
            model,
            tokenizer,
            rows,
            mode,
            style="trigger",
            max_new_tokens=limit,
            samples=s.vote_samples,
            temperature=1.0,  # the student as stage 05 will sample it
            top_p=1.0,
            title=f"votes, think-{mode}",
        )
        for mode, limit in limits.items()
    }
    voted = []
    for i, row in enumerate(rows):
        here = slice(i * s.vote_samples, (i + 1) * s.vote_samples)
        cast = {mode: frame[here] for mode, frame in frames.items()}
        passed = {mode: pass_rate(samples["correct"].tolist()) for mode, samples in cast.items()}
        if passed["on"] is None or passed["off"] is None:
            continue
        both = pd.concat(cast.values())
        ballot = {
            "replies": both["completion"].tolist(),
            "verdicts": both["correct"].tolist(),
            "forced": both["arm"].tolist(),
            "passed": passed,
            "shortest": {mode: shortest(samples, mode) for mode, samples in cast.items()},
        }
        won = preferred(passed["on"], passed["off"], s.vote_margin)
        voted.append(row | ballot | {"mode": won})
    return some(voted, len(rows))


def preferred(on: float, off: float, margin: float) -> str:
    """The mode with the higher pass rate; "off" at a tie or where they differ by under `margin`."""
    gain = round(on - off, 9)  # 3/5 - 2/5 is not below 0.2
    return "on" if gain > 0 and gain >= margin else "off"


def shortest(samples: pd.DataFrame, mode: str) -> dict[str, str | None] | None:
    """Thought and answer of the right, well-formed sample with the fewest tokens (the first)."""
    fit = samples["correct"].eq(True) & samples["problem"].isna()
    fit &= samples["thought"].notna() == (mode == "on")
    if not fit.any():
        return None
    best = samples[fit].sort_values("tokens", kind="stable").iloc[0]
    return {"thought": best["thought"], "answer": best["answer"]}


def answerable(voted: list[dict]) -> list[dict]:
    """The queries whose winning mode has a right sample; UserError if there is none."""
    kept = [row for row in voted if row["shortest"][row["mode"]]]
    if not kept:
        raise UserError(
            f"The student answered none of {len(voted)} queries rightly in the mode that won; "
            "train it longer (mtp_distillation.steps), or set cold_start.votes to 'teachers'."
        )
    return kept


def respond(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """(rows answered by the student's shortest right sample of their mode, rows without one)."""
    own, rest = [], []
    for row in rows:
        found = row.get("shortest", dict.fromkeys(template.MODES))[row["mode"]]
        plain = {key: value for key, value in row.items() if key != "shortest"}
        if found:
            own.append(plain | found | {"teacher": "student"})
        else:
            rest.append(plain)
    return own, rest
