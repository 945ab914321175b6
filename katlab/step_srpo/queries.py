"""Which queries Step-SRPO learns from, and in which order (report section 4.2.3)."""

import random
from itertools import chain, islice

from katlab import UserError, arms, batching
from katlab.lab import StageRun
from katlab.tasks import queries


def ask(stage: StageRun, model, tokenizer) -> list[dict]:
    """The candidates, each answered once with thinking forced off: query rows with `correct`.

    `correct` is True, False, or None where no verifier could say.
    """
    s = stage.settings
    candidates = queries.load(stage.config, s.candidates, stage.seed + s.seed_offset, "rl")
    frame = arms.run_arm(
        stage,
        model,
        tokenizer,
        candidates,
        "off",
        max_new_tokens=s.trainer.max_completion_length,
        temperature=s.trainer.temperature,
        top_p=1.0,
        title="what the model misses",
    )
    rows = zip(candidates, frame["correct"], strict=True)
    return [row | {"correct": None if ok is None else bool(ok)} for row, ok in rows]


def counts(candidates: list[dict]) -> dict[str, float]:
    """How many candidates no verifier could grade, and the share missed of the others.

    Raises UserError if none could be graded.
    """
    scored = [row["correct"] for row in candidates if row["correct"] is not None]
    if not scored:
        raise UserError(
            f"None of the {len(candidates)} RL candidates could be graded; `katlab doctor` says "
            "which verifier is missing here."
        )
    return {
        "unscorable": len(candidates) - len(scored),
        "missed_without_thinking": scored.count(False) / len(scored),
    }


def lay_out(
    candidates: list[dict], hard_share: float, steps: int, size: int, seed: int
) -> list[dict]:
    """`steps * size` queries in order; every step has the same share of missed ones.

    Section 4.2.3: "a deliberate concentration in the high-difficulty region while retaining a
    non-negligible proportion of easier examples for stabilization". So a step keeps one query that
    the model knows, whatever the share, where there is one and it has two places.
    A step of hard queries alone pushes every decision to think-on, one of easy ones to think-off:
    with few queries per step that swing is larger than what is learned. No query comes again before
    all of its kind have. Candidates that could not be graded are left out.
    """
    by_kind = [[row for row in candidates if row["correct"] is ok] for ok in (False, True)]
    rng = random.Random(seed)
    hard = min(round(hard_share * size), max(1, size - 1))
    if not all(by_kind):  # one kind fills the places of both
        hard = size if by_kind[0] else 0
    missed, known = (batching.passes(rows, rng) for rows in by_kind)
    return [
        row for _ in range(steps) for row in chain(islice(missed, hard), islice(known, size - hard))
    ]
