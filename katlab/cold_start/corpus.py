"""Rows of the cold start: random and told modes, verified replies, and how a row is encoded.

Report section 4.1.
"""

import random
from itertools import islice

from transformers import PreTrainedTokenizerBase

from katlab import arms, batching, teachers, template
from katlab.tasks import queries, wishes


def randomize(rows: list[dict], share: float, seed: int) -> list[dict]:
    """Give a share of the queries a random mode, whatever the vote (section 4.1.1: 1 %)."""
    rng = random.Random(seed)
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    return [
        row | ({"mode": rng.choice(template.MODES), "random_mode": True} if i in chosen else {})
        for i, row in enumerate(rows)
    ]


def direct(rows: list[dict], share: float, share_on: float, words, seed: int) -> list[dict]:
    """Put a directive of [prompts] into a share of the queries; `share_on` of them say on.

    None of those that stage 07 tests (`katlab.tasks.wishes`).
    """
    rng = random.Random(seed)
    said = {mode: wishes.trained(words, mode) for mode in template.MODES}
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    marked = []
    for i, row in enumerate(rows):
        if i in chosen:
            mode = "on" if rng.random() < share_on else "off"
            plain = row["messages"]
            row = queries.with_wish(row, rng.choice(said[mode])) | {"plain": plain, "mode": mode}
        marked.append(row)
    return marked


def respond(
    rows: list[dict], off: teachers.Responder, on: teachers.Responder, words, seed: int
) -> list[dict]:
    """The chosen mode's teacher answers; only verified responses are kept."""
    plain = [row | {"messages": row.get("plain", row["messages"]), "row": row} for row in rows]
    easy, hard = ([r for r in plain if r["mode"] == mode] for mode in ("off", "on"))
    answered = teachers.direct(easy, off, 2, seed, words.solve)
    asked = (words.solve, words.think, words.reply_patterns)
    answered += teachers.with_thought(hard, off, on, 2, seed, *asked)
    keep = ("mode", "thought", "answer", "teacher")
    return [r["row"] | {key: r[key] for key in keep} for r in answered]


def encode(tokenizer: PreTrainedTokenizerBase, row: dict, words) -> dict:
    """A row as `input_ids` and `completion_mask`; its prompt, with the judge's tag, has no loss.

    Of a Stage-2 row analysis, decision, thought and answer are learned. A Stage-1 row has no
    analysis: a judge's part that forces its mode is given, as a forced arm is prefilled, so that
    its skill moves into the new layout and no decision is learned from it.
    """
    head = template.prompt(tokenizer, row["messages"], row["tools"])
    tail = template.body(row["mode"], row["answer"], row["thought"])
    if "judge" in row:
        tail = template.judged(row["mode"], row["judge"]) + tail
    else:
        head += arms.forced(words, row["mode"])
    head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head, tail))
    tail.append(tokenizer.eos_token_id)
    return {"input_ids": head + tail, "completion_mask": [0] * len(head) + [1] * len(tail)}


def mix(
    corpus: list[dict], replayed: list[dict], replay_share: float, total: int, seed: int
) -> list[dict]:
    """`total` rows, a share of them replayed; no row comes again before all its own have."""
    rng = random.Random(seed)
    again = round(replay_share * total)
    rows = list(islice(batching.passes(corpus, rng), total - again))
    return rows + list(islice(batching.passes(replayed, rng), again))
