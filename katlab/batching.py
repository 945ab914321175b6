"""Order rows so that micro-batches are of like length while every optimizer step stays mixed.

transformers' `group_by_length` sorts fifty batches at a time and walks them from long to short, so
a training whose lengths go with categories cycles through the categories and forgets; measured at
nano, the last category seen swallows the others. Here only the rows of one step are sorted.

    rows = batching.by_length(rows, steps=100, batch_size=64, seed=0)   # with "sequential" sampling
"""

import random
from collections.abc import Iterator
from itertools import islice


def passes(rows: list[dict], rng: random.Random) -> Iterator[dict]:
    """Rows without end, each pass over them shuffled anew; nothing if there are none."""
    while rows:
        yield from rng.sample(rows, len(rows))


def by_length(rows: list[dict], steps: int, batch_size: int, seed: int) -> list[dict]:
    """`steps * batch_size` rows, reshuffled each epoch, sorted by length inside each step."""
    endless = passes(rows, random.Random(seed))
    ordered: list[dict] = []
    for _ in range(steps):
        ordered += sorted(islice(endless, batch_size), key=lambda row: len(row["input_ids"]))
    return ordered
