"""Which queries Step-SRPO learns from, and in which order (report section 4.2.3)."""

import random
from itertools import islice

from katlab import arms, batching
from katlab.lab import StageRun
from katlab.rewards import backends
from katlab.tasks import queries


def choose_queries(stage: StageRun, model, tokenizer) -> list[dict]:
    """Pick the RL queries by what the model can do now without thinking (section 4.2.3).

    Each candidate is answered once with thinking forced off; `lay_out` draws from those it misses
    and those it gets right, which teach when not to think.
    """
    s = stage.settings
    candidates = queries.load(stage.config, s.candidates, stage.seed, "rl")
    frame = arms.run_arm(
        stage,
        model,
        tokenizer,
        candidates,
        "off",
        max_new_tokens=s.max_completion_length,
        temperature=s.temperature,
        top_p=1.0,
        title="what the model misses",
    )
    right = frame["correct"].eq(True).tolist()
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    stage.record(missed_without_thinking=right.count(False) / len(right))
    missed = [row for row, ok in zip(candidates, right, strict=True) if not ok]
    known = [row for row, ok in zip(candidates, right, strict=True) if ok]
    return lay_out(missed, known, s.hard_share, s.steps, s.prompts_per_step, stage.seed)


def lay_out(
    missed: list[dict], known: list[dict], hard_share: float, steps: int, size: int, seed: int
) -> list[dict]:
    """`steps * size` queries in order; every step has the same share of missed ones.

    A step of hard queries alone pushes every decision to think-on, one of easy ones to think-off:
    with few queries a step that swing is larger than what is learned. No query comes again before
    all of its kind have.
    """
    rng = random.Random(seed)
    hard = round(hard_share * size)
    if not (missed and known):  # one kind fills the places of both
        hard = size if missed else 0
    missed, known = batching.passes(missed, rng), batching.passes(known, rng)
    rows = []
    for _ in range(steps):
        rows += islice(missed, hard)
        rows += islice(known, size - hard)
    return rows
