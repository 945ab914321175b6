"""Where a run's queries come from: the nano world, or a JSONL file of the user's own.

rows = queries.load(stage.config, 300, seed=0, split="eval")
"""

import json
import random

from katlab import UserError
from katlab.lab.stages import root
from katlab.tasks.nano import world


def load(config, n: int, seed: int, split: str) -> list[dict]:
    """`n` query rows: from the nano world, or from the profile's JSONL file (`queries`).

    A verifier's name that stands under the profile's [rewards] becomes the path written there.
    """
    if config.model.queries == "nano":
        return world.queries(n, seed, split)
    path = root() / config.model.queries  # an absolute path stays what it is
    if not path.is_file():
        raise UserError(f"the query file {path} does not exist; set model.queries to a JSONL file")
    rows = [json.loads(line) for line in path.read_text().splitlines() if line]
    own = vars(config.rewards)
    rows = [
        row | {"verifier": own.get(row["verifier"], row["verifier"])}
        for row in rows
        if row.get("split", split) == split
    ]
    if len(rows) < n:
        raise UserError(
            f"{path} has {len(rows)} {split} rows and {n} are asked for; lower the count"
        )
    return random.Random(seed).sample(rows, n)
