"""The six categories of the nano world: a query, its reference, its direct answer, its thought.

Skills: composed expressions (code), sums and products (math), comparisons (science), words of
letters (general), ten marks in a circle (multi_turn), running sums (tool_use). Each maker takes a
random generator and a difficulty; what makes its queries hard is said in it.

    row = makers.MAKERS["math"](random.Random(0), 4)
"""

import json
import random

from katlab.tasks.nano.arithmetic import (
    HIGHEST,
    column,
    decoys,
    product,
    running_sum,
    with_decoys,
)

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPS = {  # on a word of letters
    "reverse": lambda word: word[::-1],
    "sort": lambda word: "".join(sorted(word)),
    "swap ends": lambda word: word[-1] + word[1:-1] + word[0],
    "first to end": lambda word: word[1:] + word[0],
    "drop first": lambda word: word[1:],
    "drop last": lambda word: word[:-1],
}


def _query(
    content: str | list[dict], verifier: str, reference, direct: str, thought: list[str], problem
) -> dict:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    return {
        "messages": messages,
        "tools": None,
        "verifier": verifier,
        "reference": reference,
        "direct": direct,
        "thought": "\n".join(thought),
        "problem": json.dumps(problem),
    }


def _signed(changes: list[int]) -> str:
    return "".join(f"{change:+d}" for change in changes)


def _math(rng: random.Random, difficulty: int) -> dict:
    """A sum or a product; graded as a number."""
    if rng.random() < 0.5:
        start, shown, value, lines, problem = running_sum(rng, difficulty)
        text = f"{start}{_signed(shown)}"
    else:
        text, value, lines, problem = product(rng, difficulty)
    verb = rng.choice(["Compute", "Find", "Work out"])
    return _query(f"{verb} {text}.", "math", str(value), str(value), lines, problem)


def _code(rng: random.Random, difficulty: int) -> dict:
    """Compose operations on x into one expression a*x+b; graded by running unit tests.

    One operation; one behind a *0; one factor and one change; one and two; two and two. What
    stands before a *0 is a decoy.
    """
    name = rng.choice("xyzn")
    count = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4}[difficulty]
    size = {1: 99, 2: 30, 3: 20, 4: 9, 5: 9}[difficulty]
    ops: list[str] = []
    before = decoys(rng, difficulty)
    if difficulty == 1:
        ops += ["+0"] * before
    elif before or difficulty == 2:
        ops += [_nonzero(rng, 20) for _ in range(max(1, before))] + ["*0"]
    factors = rng.sample(range(count), k={1: 0, 2: 0, 3: 1, 4: 1, 5: 2}[difficulty])
    for i in range(count):
        ops.append(f"*{rng.randint(2, 5)}" if i in factors else _nonzero(rng, size))
    a, b, lines = 1, 0, []
    for op in ops:
        k = int(op.lstrip("*"))
        a, b = (a * k, b * k) if op[0] == "*" else (a, b + k)
        lines.append(f"{op}: {_affine(a, b, name)}")
    if "*0" in ops:
        lines = lines[ops.index("*0") :]
    matter = [op for op, line in zip(ops, lines, strict=False) if op != "+0"] or ops
    lines = [line for line in lines if not line.startswith("+0")]
    tests = [{"args": [x], "expected": a * x + b} for x in (0, 1, 2, 7, -3)]
    direct = f"lambda {name}: {_affine(a, b, name)}"
    text = f"Write f: {name} {' '.join(ops)}."
    problem = ["code", *(ops if "*0" in ops else matter)]
    return _query(text, "code", {"entry": "f", "tests": tests}, direct, lines, problem)


def _nonzero(rng: random.Random, size: int) -> str:
    return f"{rng.choice((-1, 1)) * rng.randint(1, size):+d}"


def _affine(a: int, b: int, name: str) -> str:
    if a == 0:
        return str(b)
    head = name if a == 1 else f"{a}*{name}"
    return head if b == 0 else f"{head}{b:+d}"


def _science(rng: random.Random, difficulty: int) -> dict:
    """Which of some amounts is the largest; graded by the letter of the option.

    One of two digits among ones of one; amounts whose tens differ; that differ in the ones; of
    which two are sums; all. A small amount that is a sum is a decoy.
    """
    what, unit = rng.choice([("mass", "g"), ("length", "m"), ("time", "s"), ("charge", "C")])
    count = 4 if difficulty == 5 else rng.choice((3, 4))
    while True:
        values = rng.sample(range(20, HIGHEST), count)
        second, top = sorted(values)[-2:]
        same_tens = top // 10 == second // 10
        if difficulty == 1 or (difficulty == 2 and not same_tens):
            break
        if top - second <= 9 and (difficulty > 3 or (difficulty == 3 and same_tens)):
            break
    if difficulty == 1:
        values = [value if value == top else rng.randint(1, 9) for value in values]
    sums = rng.sample(range(count), {4: 2, 5: count}.get(difficulty, 0))
    if difficulty in (2, 3):
        low = [i for i, value in enumerate(values) if value < top - 20]
        sums += low[: decoys(rng, difficulty)]
    options, lines = [], []
    for i, value in enumerate(values):
        part = rng.randint(5, value - 5) if i in sums else 0
        options.append(f"{value - part}+{part}" if part else str(value))
        lines.append(f"{'ABCD'[i]} {column(value - part, part) if part else value}")
    letter = "ABCD"[values.index(max(values))]
    listed = " ".join(f"{'ABCD'[i]} {option}" for i, option in enumerate(options))
    reference = {"answer": letter, "options": list("ABCD"[:count])}
    text = f"Largest {what} in {unit}? {listed}"
    return _query(text, "choice", reference, letter, lines, ["largest", *options])


def _general(rng: random.Random, difficulty: int) -> dict:
    """What becomes of a word of letters; graded by the keyword that says it.

    One letter of it; a short or a longer word changed once; changed twice or thrice; four times or
    five. To keep a word is a decoy.
    """
    letters = {1: (3, 9), 2: (3, 4), 3: (5, 6), 4: (4, 5), 5: (5, 6)}[difficulty]
    word = "".join(rng.sample(LETTERS, rng.randint(*letters)))
    shown, lines = [], []
    if difficulty == 1:
        what = rng.choice(["first letter", "last letter"])
        answer, shown = word[0 if what[0] == "f" else -1], [what]
        lines = [f"{what} {answer}"]
    else:
        answer = word
        for _ in range({2: 1, 3: 1, 4: rng.choice((2, 3)), 5: rng.choice((4, 5))}[difficulty]):
            what = rng.choice([op for op in OPS if not (len(answer) < 4 and op.startswith("drop"))])
            answer = OPS[what](answer)
            shown.append(what)
            lines.append(f"{what} {answer}")
    problem = ["word", word, *shown]
    for _ in range(decoys(rng, difficulty)):
        shown.insert(rng.randint(0, len(shown)), "keep")
    return _query(
        f"{word}: {', '.join(shown)}.", "keywords", {"all": [answer]}, answer, lines, problem
    )


def _multi_turn(rng: random.Random, difficulty: int) -> dict:
    """A dial of ten marks, turned over turns; graded as a number.

    Not turned; turned once; twice; three or four times; five or six. Of how far it is turned only
    the ones matter, and turns that cancel are decoys.
    """
    mark = rng.randint(0, 9)
    count = {1: 0, 2: 1, 3: 2, 4: rng.choice((3, 4)), 5: rng.choice((5, 6))}[difficulty]
    changes = [rng.choice((-1, 1)) * rng.randint(1, 49) for _ in range(count)]
    shown = with_decoys(rng, changes, max(decoys(rng, difficulty), difficulty == 1))
    lines, at = [], mark
    for change in changes:
        lines.append(f"{at}{change:+d}: {(at + change) % 10}")
        at = (at + change) % 10
    cut = rng.randint(0, len(shown) - 1)
    said = [f"Dial at {mark}.", *([f"Turn {_signed(shown[:cut])}."] if cut else [])]
    messages = []
    for one in said:
        messages += [{"role": "user", "content": one}, {"role": "assistant", "content": "OK"}]
    messages.append({"role": "user", "content": f"Turn {_signed(shown[cut:])}. Where?"})
    thought = lines or [f"{mark}+0: {mark}"]
    problem = ["dial", mark, *(changes or shown)]
    return _query(messages, "math", str(at), str(at), thought, problem)


def _tool_use(rng: random.Random, difficulty: int) -> dict:
    """A dial is turned by some changes; graded by the call that sets it."""
    device = rng.choice(["heat", "light", "fan"])
    start, shown, total, lines, problem = running_sum(rng, difficulty)
    tool = {
        "name": f"set_{device}",
        "parameters": {"type": "object", "properties": {"level": {"type": "integer"}}},
    }
    call = {"name": tool["name"], "arguments": {"level": total}}
    row = _query(
        f"The {device} is at {start}. Set it to {start}{_signed(shown)}.",
        "tool_call",
        call | {"tools": [tool]},
        f"<tool_call>\n{json.dumps(call)}\n</tool_call>",
        lines,
        problem,
    )
    return row | {"tools": [tool]}


MAKERS = {
    "code": _code,
    "math": _math,
    "science": _science,
    "general": _general,
    "multi_turn": _multi_turn,
    "tool_use": _tool_use,
}
