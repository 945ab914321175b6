"""Sums and products on paper: by how much work they take, with decoys that take none.

A line of a thought is a column sum or product as it is written on paper: what the ones give, then
the total. `46+38: 14 84` carries, `46-38: -8 8` takes a ten, `46*9: 54 36 414` has both products.

    start, shown, total, lines, problem = arithmetic.running_sum(random.Random(0), difficulty=4)
"""

import random

HIGHEST = 99  # running values of sums stay within 0..HIGHEST
LONGER = {1: 0.7, 2: 0.4, 3: 0.4, 4: 0.2, 5: 0.2}  # share of queries longer than their work


def decoys(rng: random.Random, difficulty: int) -> int:
    """How many decoys a query has: none, or up to three, fewer where there is much to do."""
    return 0 if rng.random() > LONGER[difficulty] else rng.randint(1, 3 if difficulty <= 3 else 1)


def running_sum(rng: random.Random, difficulty: int) -> tuple[int, list[int], int, list[str], list]:
    """(start, changes as shown, total, thought, problem) of a value that changes.

    Nothing that counts; one change of the ones; of both digits; one that carries; two or three.
    """
    start = rng.randint(11, 88)
    value, changes = start, []
    for _ in range({1: 0, 5: rng.choice((2, 3))}.get(difficulty, 1)):
        carry = {2: False, 3: False, 4: True}.get(difficulty)
        sizes = range(1, 10) if difficulty == 2 else range(11, HIGHEST)
        changes.append(change(rng, value, sizes, carry))
        value += changes[-1]
    count = max(decoys(rng, difficulty), difficulty == 1)
    shown = with_decoys(rng, changes, count)
    lines = steps(start, shown) + ([] if changes else [f"{start}+0: {start}"])
    return start, shown, value, lines, ["sum", start, *(changes or shown)]


def change(rng: random.Random, value: int, sizes: range, carry: bool | None) -> int:
    """A change of one of the sizes that stays in range: with a carry, without, or either."""
    options = [k for size in sizes if size % 10 for k in (-size, size)]
    options = [k for k in options if 0 <= value + k <= HIGHEST]
    return rng.choice([k for k in options if carry in (None, carries(value, k))])


def carries(value: int, change: int) -> bool:
    """Whether the ones of a sum reach the tens."""
    ones = value % 10 + (change % 10 if change > 0 else -(-change % 10))
    return not 0 <= ones <= 9


def with_decoys(rng: random.Random, changes: list[int], count: int) -> list[int]:
    """The changes, with so many zeros and pairs that cancel between them."""
    blocks = [[change] for change in changes]
    for _ in range(count):
        k = rng.choice((-1, 1)) * rng.randint(2, HIGHEST)
        decoy = [k, -k] if rng.random() < 0.5 else [0]
        blocks.insert(rng.randint(0, len(blocks)), decoy)
    return [change for block in blocks for change in block]


def steps(start: int, shown: list[int]) -> list[str]:
    """The worked sum, one line a change; zeros take none, and a pair that cancels one."""
    lines, value, i = [], start, 0
    while i < len(shown):
        if shown[i] and i + 1 < len(shown) and shown[i] == -shown[i + 1]:
            lines.append(f"{shown[i]:+d}{shown[i + 1]:+d}=0")
            i += 2
            continue
        if shown[i]:
            lines.append(column(value, shown[i]))
            value += shown[i]
        i += 1
    return lines


def column(value: int, change: int) -> str:
    """One sum in columns: what the ones give (a minus where a ten is taken), the total."""
    if change > 0:
        ones = str(value % 10 + change % 10)
    else:
        taken = carries(value, change)
        ones = f"{'-' * taken}{(value % 10 - (-change % 10)) % 10}"
    return f"{value}{change:+d}: {ones} {value + change}"


def times(a: int, b: int) -> str:
    """A product of two digits and one in columns: of the ones, of the tens, both."""
    tens, ones = divmod(a, 10)
    return f"{a}*{b}: {ones * b} {tens * b} {a * b}"


def product(rng: random.Random, difficulty: int) -> tuple[str, int, list[str], list]:
    """(expression, value, thought, problem): by 0, by 1, doubled without carries, times, and more.

    Two factors and a sum at the highest difficulty; ones among the factors are decoys.
    """
    if difficulty == 1:
        factors = [rng.randint(2, HIGHEST) for _ in range(rng.choice((1, 2, 3)))]
        factors.insert(rng.randint(0, len(factors)), 0)
        return "*".join(map(str, factors)), 0, ["*0: 0"], ["product", *factors]
    a, b = rng.randint(12, HIGHEST), rng.randint(3, 9)
    if difficulty == 2:
        factors = [a] + [1] * rng.choice((1, 2, 3))
        rng.shuffle(factors)
        return "*".join(map(str, factors)), a, [f"*1: {a}"], ["product", a]
    if difficulty == 3:
        a = int("".join(rng.choice("1234") for _ in range(rng.choice((2, 3, 4)))))
        text = _with_ones(rng, [a, 2], difficulty)
        return text, 2 * a, [f"{a}*2: {2 * a}"], ["product", a, 2]
    if difficulty == 4:
        return _with_ones(rng, [a, b], difficulty), a * b, [times(a, b)], ["product", a, b]
    a = rng.randint(12, 33)
    b = rng.randint(2, HIGHEST // a)
    c = change(rng, a * b, range(11, HIGHEST), None)
    lines = [times(a, b), column(a * b, c)]
    return f"{_with_ones(rng, [a, b], difficulty)}{c:+d}", a * b + c, lines, ["product", a, b, c]


def _with_ones(rng: random.Random, factors: list[int], difficulty: int) -> str:
    shown = list(factors)
    for _ in range(decoys(rng, difficulty)):
        shown.insert(rng.randint(0, len(shown)), 1)
    return "*".join(map(str, shown))
