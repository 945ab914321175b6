"""Which queries are answered directly, which with a thought, by their tags (section 3.2)."""

import random


def route(rows: list[dict], share_on: float, cross_share: float, on_level: int, seed: int):
    """Split tagged rows into (think-off, think-on) so that think-on is `share_on` of their sum.

    Rows tagged `on_level` or harder are think-on's own, easier ones think-off's; `cross_share` of
    each regime is drawn from the other side.
    """
    rng = random.Random(seed)
    easy = [row for row in rows if row["tags"]["level"] < on_level]
    hard = [row for row in rows if row["tags"]["level"] >= on_level]
    rng.shuffle(easy)
    rng.shuffle(hard)
    # own side of think-off is easy: total*(1-share_on)*(1-cross) + total*share_on*cross <= easy
    from_easy = (1 - share_on) * (1 - cross_share) + share_on * cross_share
    total = int(min(len(easy) / from_easy, len(hard) / (1 - from_easy)))
    off_easy, off_hard = _parts(total * (1 - share_on), cross_share)
    on_hard, on_easy = _parts(total * share_on, cross_share)
    off = easy[:off_easy] + hard[:off_hard]
    on = hard[off_hard : off_hard + on_hard] + easy[off_easy : off_easy + on_easy]
    return off, on


def _parts(count: float, cross_share: float) -> tuple[int, int]:
    other = int(count * cross_share)
    return int(count) - other, other
