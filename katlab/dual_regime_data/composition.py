"""The corpus's two regimes in the report's proportion (section 3.2: 34.8 % think-on)."""

import random


def compose(off: list[dict], on: list[dict], share_on: float, seed: int) -> list[dict]:
    """As many rows as keep think-on at exactly `share_on` (to one row), shuffled."""
    total = int(min(len(off) / (1 - share_on), len(on) / share_on))
    n_on = round(total * share_on)
    rng = random.Random(seed)
    rows = rng.sample(off, total - n_on) + rng.sample(on, n_on)
    rng.shuffle(rows)
    return rows
