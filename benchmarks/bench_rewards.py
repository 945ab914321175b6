"""Verifiers under load: math against math-verify alone, code in sandboxes, attacks on time.

Math: groups of 64 answers per prompt, 5 % of them pathological, graded by `katlab.rewards` and by
math-verify with its own time-outs in one process; the verdicts on the sane part must be the same.
Code: distinct candidates with 5 tests each. Attacks: the slowest of the corpus over its deadline.
The last line is one JSON object. Usage: `python benchmarks/bench_rewards.py`
"""

import json
import logging
import os
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
PROMPTS = {  # reference: (right forms, wrong forms)
    "12": (["12", "12.0", r"\frac{24}{2}"], ["13", "11", "-12", "1.2", "21", "12x"]),
    r"\frac{3}{4}": (["3/4", "0.75", r"\frac{3}{4}"], ["4/3", "0.7", "3", r"\frac{1}{4}"]),
    "x^2-1": (["(x-1)(x+1)", "x^2 - 1", "-1+x^2"], ["x^2+1", "x-1", "(x-1)^2", "x^2"]),
    r"2\sqrt{3}": ([r"\sqrt{12}", r"2\sqrt{3}"], [r"3\sqrt{2}", r"\sqrt{6}", "3.46"]),
    "1024": (["1024", "2^{10}", "1,024"], ["1000", "512", "2048", "2^{11}"]),
    r"\frac{\pi}{2}": ([r"\pi/2", r"\frac{\pi}{2}"], [r"\pi", r"2\pi", "1.57", "90"]),
}
PATHOLOGICAL = [
    "9^{9^{9}}", "100000000!", r"\binom{1000000000}{500000000}", "10^{10^{10}}",
    r"\sum_{i=1}^{1000000000} i", r"\prod_{i=1}^{1000000000} i", r"\sin(10^{10^{9}})",
    "(" * 3000 + "1" + ")" * 3000, r"\frac{1}{" * 400 + "1" + "}" * 400,
    r"\int_0^{99999} x^x \sin(x^x) dx",  # within the bounds: a worker is killed for it
]  # fmt: skip
GROUP, SHARE = 64, 0.05


def load(seed: int = 0) -> list[tuple[str, str, bool]]:
    """(answer, reference, pathological) rows: for each prompt one group."""
    rng, rows, bad = random.Random(seed), [], 0
    for reference, (right, wrong) in PROMPTS.items():
        for _ in range(GROUP):
            if bad < SHARE * (len(rows) + 1) - 0.5:
                rows.append(
                    (rf"\boxed{{{PATHOLOGICAL[bad % len(PATHOLOGICAL)]}}}", reference, True)
                )
                bad += 1
                continue
            if rng.random() < 0.15:  # an answer that nobody else in the group gave
                form = str(rng.randint(100, 10**6))
            else:
                form = rng.choice(right if rng.random() < 0.5 else wrong)
            rows.append((rf"so it is \boxed{{{form}}}.", reference, False))
    return rows


def by_library(rows: list[tuple[str, str, bool]]) -> list[bool]:
    """math-verify as its README has it, with its own time-outs, in this process's main thread."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    return [verify(parse(f"${reference}$"), parse(answer)) for answer, reference, _ in rows]


def math_bench() -> float:
    from katlab.rewards import grade, math_pool

    rows = load()
    start = time.perf_counter()
    math_pool.compare([("x", "y")], 10.0)
    print(f"math: worker up in {time.perf_counter() - start:.1f} s", flush=True)
    start = time.perf_counter()
    verdicts = grade([("math", answer, reference) for answer, reference, _ in rows])
    ours = time.perf_counter() - start
    print(f"math: {len(rows)} verdicts in {ours:.2f} s, {len(rows) / ours:.0f}/s", flush=True)
    by_library([row for row in rows if not row[2]][:3])  # its imports and tables, not timed
    start = time.perf_counter()
    theirs = by_library(rows)
    alone = time.perf_counter() - start
    print(f"math: math-verify alone in {alone:.2f} s, {len(rows) / alone:.1f}/s")
    differ = [
        (answer, reference, verdict.correct, other)
        for (answer, reference, bad), verdict, other in zip(rows, verdicts, theirs, strict=True)
        if not bad and verdict.correct is not other
    ]
    passed = sum(v.correct is True for v, row in zip(verdicts, rows, strict=True) if row[2])
    sane = sum(not bad for *_, bad in rows)
    print(f"math: sane verdicts that differ {len(differ)} of {sane}; pathological passed {passed}")
    for row in differ[:10]:
        print("   ", row)
    if differ or passed:
        raise SystemExit("the verdicts differ: the speed means nothing")
    return alone / ours


def code_bench(n: int = 150) -> tuple[float, str]:
    from katlab.rewards import grade
    from katlab.rewards.sandbox import isolation

    rows = []
    for k in range(n):
        tests = [{"args": [x], "expected": k * x + 1} for x in range(5)]
        source = (
            f"```python\ndef f(x):\n    total = 1\n    for _ in range({k}):\n        total += x\n"
        )
        rows.append(("code", source + "    return total\n```", {"entry": "f", "tests": tests}))
    name = isolation.choose().name
    grade(rows[:4])
    start = time.perf_counter()
    verdicts = grade(rows[4:])
    spent = time.perf_counter() - start
    right = sum(v.correct is True for v in verdicts)
    print(f"code: {right} of {len(verdicts)} candidates right, 5 tests each, {spent:.2f} s, {name}")
    return (len(verdicts) / spent if right == len(verdicts) else 0.0), name


def attack_bench() -> None:
    from rewards.attacks.corpus import ATTACKS, FORMS, SECONDS

    from katlab.rewards import grade

    verdicts = grade([("code", a.source, FORMS[a.form]) for a in ATTACKS])
    over = sorted(((v.seconds - SECONDS, a.id) for v, a in zip(verdicts, ATTACKS, strict=True)))
    held = sum(v.correct is not True for v in verdicts)
    print(
        f"attacks: {held} of {len(ATTACKS)} not correct; the slowest ended {over[-1][0]:+.2f} s "
        f"from its deadline ({over[-1][1]}), starting the sandbox included"
    )


def nano_bench() -> None:
    """A rollout batch of the nano world's size: what one training step waits for."""
    from katlab.rewards import grade

    rng = random.Random(1)
    rows = []
    for i in range(256):
        x = rng.randint(1, 99)
        tests = [{"args": [k], "expected": 2 * k + x % 8} for k in range(5)]
        rows.append([
            ("math", str(x + rng.randint(0, 1)), str(x)),
            ("code", f"lambda x: 2 * x + {rng.randint(0, 8)}", {"entry": "f", "tests": tests}),
            ("choice", rng.choice("ABCD"), {"answer": "B", "options": list("ABCD")}),
            ("keywords", f"cup {rng.choice('ABC')}", {"all": ["cup C"]}),
        ][i % 4])  # fmt: skip
    start = time.perf_counter()
    grade(rows)
    print(f"nano: 256 mixed short answers, 64 of them code, in {time.perf_counter() - start:.2f} s")


def main() -> None:
    print(f"cores {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")
    per_second, isolation = code_bench()
    nano_bench()
    attack_bench()
    speedup = math_bench()
    print(json.dumps({"bench": "rewards", "math_speedup": round(speedup, 1),
                      "code_per_s": round(per_second, 1), "isolation": isolation}))  # fmt: skip


if __name__ == "__main__":
    main()
