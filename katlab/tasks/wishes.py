"""A user's wishes for a mode in words (report section 6.4): some are trained on, others tested.

Two fifths of each list of [prompts] are held out, by the hash of a sentence's words, so that which
they are is nobody's choice; sentences that differ only in case or punctuation stay together.
Deviation: the report shows one wish for each mode and does not say which were trained on.

    wishes.trained(config.prompts, "on")  # stage 04, and whatever a tokenizer has to read
    wishes.tested(config.prompts, "on")  # stage 07; none of the above
"""

import hashlib
import random

HELD_OUT = 0.4


def trained(words, mode: str) -> list[str]:
    """The sentences of [prompts] for a mode ("on", "off") that may stand in training data."""
    return split(_said(words, mode))[0]


def tested(words, mode: str) -> list[str]:
    """Those kept for testing; the trained ones where the list is too short to be split."""
    return split(_said(words, mode))[1]


def split(sentences: list[str]) -> tuple[list[str], list[str]]:
    """Sentences trained on and tested, in the order given; both are all of fewer than three."""
    order = sorted({plain(one) for one in sentences}, key=_hash)
    if len(order) < 3:
        return list(sentences), list(sentences)
    held_out = set(order[: int(HELD_OUT * len(order))])
    return (
        [one for one in sentences if plain(one) not in held_out],
        [one for one in sentences if plain(one) in held_out],
    )


def spread(sentences: list[str], n: int, seed: int) -> list[str]:
    """`n` sentences in random order, each as often as the next; all of them if `n` allows it."""
    rng = random.Random(seed)
    order = rng.sample(sentences, len(sentences))
    said = [order[i % len(order)] for i in range(n)]
    rng.shuffle(said)
    return said


def plain(sentence: str) -> str:
    """A sentence's letters and digits, in lower case and without spaces."""
    return "".join(filter(str.isalnum, sentence.casefold()))


def _said(words, mode: str) -> list[str]:
    return vars(words)[f"directive_{mode}"]


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
