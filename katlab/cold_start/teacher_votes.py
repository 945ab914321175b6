"""Which mode a query needs, by a majority of several models' outputs (report section 4.1.1).

Three models answer every query `vote_samples` times: the student of stage 03 and the think-off
teacher directly, the think-on teacher with a thought. An output votes for the mode that it is
written in where it is right, and for the other mode where it is wrong. The majority sets the mode,
whose teacher then writes the response: the roles of DeepSeek-R1 and DeepSeek-V3.

Deviations: (1) the report names neither the models that vote nor what an output votes for; (2)
right is what the verifier says, and what it cannot score votes for nothing; (3) a tie goes to
think-on: at the cold start an answer lost costs more than tokens spent.

    voted = vote(stage, queries)
"""

from collections.abc import Sequence

import pandas as pd

from katlab import arms, models, teachers
from katlab.cold_start.votes import pass_rate, some
from katlab.lab import StageRun


def vote(stage: StageRun, rows: list[dict]) -> list[dict]:
    """Add `mode`, `votes_off` of so many `votes`, and `passed`: pass rates by voter.

    `replies`, `verdicts` (True, False, None), `voter` and `forced` (the mode) are what voted. A
    query of which nothing can be scored is left out; UserError if that leaves none.
    """
    n = stage.settings.vote_samples
    frames = [of_student(stage, rows), *(of_teacher(stage, rows, mode) for mode in ("off", "on"))]
    voted = []
    for i, row in enumerate(rows):
        cast = pd.concat(frame[i * n : (i + 1) * n] for frame in frames)
        verdicts, forced = cast["correct"].tolist(), cast["arm"].tolist()
        off, votes = ballot(verdicts, forced)
        if not votes:
            continue
        right = cast.groupby("voter", sort=False)["correct"]
        told = {
            "replies": cast["completion"].tolist(),
            "verdicts": verdicts,
            "forced": forced,
            "voter": cast["voter"].tolist(),
            "passed": {name: pass_rate(given.tolist()) for name, given in right},
            "votes_off": off,
            "votes": votes,
        }
        voted.append(row | told | {"mode": "off" if 2 * off > votes else "on"})
    return some(voted, len(rows))


def ballot(verdicts: Sequence[bool | None], modes: Sequence[str]) -> tuple[int, int]:
    """(votes for think-off, votes) of outputs by their verdicts and the modes written in."""
    cast = [
        mode if right else {"off": "on", "on": "off"}[mode]
        for right, mode in zip(verdicts, modes, strict=True)
        if right is not None
    ]
    return cast.count("off"), len(cast)


def of_student(stage: StageRun, rows: list[dict]) -> pd.DataFrame:
    """Direct answers of stage 03's student: completion, correct, arm and voter, one row each."""
    s = stage.settings
    folder = stage.upstream("03_mtp_distillation") / "checkpoints" / "student"
    model, tokenizer = models.load_from(folder, stage.config.model)
    frame = arms.run_arm(
        stage,
        model,
        tokenizer,
        rows,
        "off",
        style="trigger",
        max_new_tokens=s.vote_tokens,
        samples=s.vote_samples,
        temperature=1.0,  # a voter's outputs must differ
        top_p=1.0,
        title="votes of the student",
    )
    return frame[["completion", "correct", "arm"]].assign(voter="student, think-off")


def of_teacher(stage: StageRun, rows: list[dict], mode: str) -> pd.DataFrame:
    """Outputs of a mode's teacher, in the same columns; an answer that is absent is wrong."""
    n, words = stage.settings.vote_samples, stage.config.prompts
    asked = teachers.asked(rows, {"off": words.solve, "on": words.think}[mode])
    replies = teachers.load(stage, mode).respond(asked, n, 1.0, stage.seed)
    texts = [text for several in replies for text in several]
    answers = [teachers.split_thought(text, words.reply_patterns)[1] or None for text in texts]
    frame = pd.DataFrame({"completion": texts, "arm": mode, "voter": f"teacher, think-{mode}"})
    right = arms.graded([row for row in rows for _ in range(n)], answers)
    return frame.assign(correct=pd.Series(right, dtype=object))
