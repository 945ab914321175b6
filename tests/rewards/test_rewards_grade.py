"""`grade`: the answer span, all kinds in one batch, verifiers of your own, hostile text, soak."""

import json
import os
import random

import pytest
from conftest import CHECKOUT
from hypothesis import given, settings
from hypothesis import strategies as st
from rewards.examples import ADD, EXAMPLES, PLANETS, SQUARE, call

from katlab import UserError
from katlab.rewards import (
    Verdict,
    answer_span,
    choice,
    code,
    doctor,
    grade,
    kinds,
    math_pool,
    tool_call,
    verdict,
    verifier,
)
from katlab.rewards.sandbox import isolation

# ---- the answer's span ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "span"),
    [
        ("12", "12"),
        ("<judge>\nhard 7\n</judge>\n\n<think_off>\n<answer>\n12\n</answer>", "12"),
        (
            "easy</judge>\n<think_on>\n<think>\n13\n</think>\n\n<answer>\n12\n</answer><|im_end|>",
            "12",
        ),
        ("<answer>1</answer><answer>2</answer>", "2"),
        ("<answer>12", ""),
        ("<think>12</think>", ""),
        ("<think>12</think>\n\n<answer>\n\n</answer>", ""),
        ("12</answer>", ""),
        ("<answer><think>12</think></answer>", ""),
        (None, ""),
    ],
)
def test_only_the_answer_span_counts(completion, span):
    assert answer_span(completion) == span


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(["<answer>", "</answer>", "<think>", "</think>", "a", " ", "\n"])))
def test_the_span_of_a_span_is_itself(parts):
    once = answer_span("".join(parts))
    assert answer_span(once) == once and not verdict._placed(once)


# ---- grade, and verifiers of one's own -----------------------------------------------------------

ROMAN = '''
from katlab.rewards import Verdict

VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}


def verify(answer, reference):
    """The answer is a Roman numeral equal to the reference."""
    digits = [VALUES[c] for c in answer.strip().upper()]
    total = sum(-a if a < b else a for a, b in zip(digits, [*digits[1:], 0]))
    return Verdict(total == reference, f"reads {total}")
'''


def test_a_custom_verifier_is_one_file_and_one_function(tmp_path):
    file = tmp_path / "roman.py"
    file.write_text(ROMAN)
    rows = [("roman", "XIV", 14), ("math", "14", "14"), ("roman", "XVI", 14), ("roman", "?", 14)]
    verdicts = grade([(str(file) if kind == "roman" else kind, *rest) for kind, *rest in rows])
    assert [v.correct for v in verdicts] == [True, True, False, None]
    assert "KeyError" in verdicts[3].reason
    assert grade([(str(file), "<answer>IX</answer>", 9)])[0].correct is True


def test_the_seconds_of_a_custom_verifier_are_measured(tmp_path):
    file = tmp_path / "roman.py"
    file.write_text(ROMAN)
    assert grade([(str(file), "IX", 9)])[0].seconds > 0.0


def test_a_custom_verifier_that_gives_no_verdict_is_unscorable(tmp_path):
    file = tmp_path / "bare.py"
    file.write_text("def verify(answer, reference):\n    return answer == reference\n")
    (graded,) = grade([(str(file), "IX", "IX")])
    assert graded.correct is None and "not a Verdict" in graded.reason


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_package\n", "fails at import"),
        ("raise SystemExit(1)\n", "fails at import"),
        ("def verify(answer, reference:\n", "fails at import"),
        ("import sys\ndef verify(answer, reference):\n    sys.exit(1)\n", "SystemExit"),
        ("def verify(answer, reference):\n    raise BaseException('late')\n", "late"),
        ("raise BaseException('late')\n", "fails at import"),
        ("def verify(answer, reference):\n    raise KeyError(answer)\n", "KeyError"),
        ("def verify(answer, reference):\n    return None\n", "not a Verdict"),
        ("def verify():\n    return 1\n", "TypeError"),
        (
            "from katlab.rewards import Verdict\n"
            "def verify(answer, reference):\n    return Verdict('yes', 'sure')\n",
            "not a Verdict",
        ),
        (
            "from katlab.rewards import Verdict\n"
            "def verify_batch(pairs):\n    return [Verdict(True, 'all')] * 5\n"
            "def verify(answer, reference):\n    return Verdict(None, 'one by one')\n",
            "one by one",
        ),
        (
            "from katlab.rewards import Verdict\n"
            "def verify_batch(pairs):\n    raise SystemExit\n"
            "def verify(answer, reference):\n    return Verdict(None, 'one by one')\n",
            "one by one",
        ),
    ],
)
def test_a_failing_verifier_ends_no_batch(tmp_path, source, said):
    file = tmp_path / "fails.py"
    file.write_text(source)
    inner = {"kind": str(file), "reference": "1"}
    rows = [(str(file), "1", "1"), ("math", "12", "12"), (str(file), "2", "2")]
    rows.append(("multi_turn", "1", inner))
    first, sane, second, turn = grade(rows)
    assert sane.correct is True
    for graded in (first, second, turn):
        assert graded.correct is None and said in graded.reason


def test_a_broken_row_of_a_parallel_kind_costs_itself_only(monkeypatch):
    whole = math_pool.compare

    def fails(items, seconds):
        if any("boom" in answer for _, answer in items):
            raise RuntimeError("boom")
        return whole(items, seconds)

    monkeypatch.setattr(math_pool, "compare", fails)
    rows = [("math", "x+2", "2+x"), ("math", "boom+3", "3"), ("math", "x+4", "4+x")]
    assert [v.correct for v in grade(rows)] == [True, None, True]


def test_unknown_kinds_and_files_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'math'"):
        grade([("mat", "1", "1")])
    with pytest.raises(UserError, match="does not exist"):
        verifier(str(tmp_path / "none.py"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="defines no verify"):
        verifier(str(tmp_path / "empty.py"))
    with pytest.raises(UserError):
        verifier("compare")


def test_the_kinds_are_the_files_that_define_verify():
    files = (CHECKOUT / "katlab" / "rewards").glob("*.py")
    assert sorted(p.stem for p in files if "\ndef verify(" in p.read_text()) == kinds()


def test_every_kind_states_what_it_accepts():
    for kind in kinds():
        module = verifier(kind)
        assert "Accepts:" in module.__doc__ and "Usage:" in module.__doc__
        assert isinstance(module.verify("<think>1</think>", EXAMPLES[kind][1]), Verdict)


def test_a_mixed_batch_keeps_its_order():
    if isolation.choose().name == "none":
        pytest.skip(f"isolation unavailable: {isolation.choose().why}")
    rows, want = [], []
    for i, kind in enumerate(sorted(EXAMPLES) * 4):
        right, reference = EXAMPLES[kind]
        rows.append((kind, f"<answer>{right if i % 3 else 'no'}</answer>", reference))
        want.append(bool(i % 3))
    verdicts = grade(rows)
    assert [v.correct for v in verdicts] == want
    assert all(v.reason and v.seconds >= 0 for v in verdicts)
    assert grade([]) == []


def test_doctor_reports_each_backend():
    lines = doctor()
    assert {"math-verify", "code isolation"} <= {name for name, *_ in lines}
    assert all(ok or remedy for _, ok, _, remedy in lines)


texts = st.text(alphabet="ABCDabcd isothenrw:.()\\{}boxed\n*$-'<tool_call>/\"", max_size=150)


@settings(max_examples=300, deadline=None)
@given(st.one_of(texts, st.text(max_size=200)))
def test_no_extractor_fails_or_changes_its_mind(answer):
    _, options = choice.option_texts({"answer": "A", **PLANETS})
    letter, where = choice.extract(answer, options)
    assert where and (letter is None or (len(letter) == 1 and letter.isupper()))
    if letter:  # what was extracted, submitted alone, is extracted again
        assert choice.extract(letter, options)[0] == letter
    try:
        calls = tool_call.parse_calls(answer)
    except (ValueError, RecursionError):
        calls = []
    again = "".join(f"<tool_call>{json.dumps(c)}</tool_call>" for c in calls)
    assert tool_call.parse_calls(again) == calls
    for kind in ("choice", "keywords", "tool_call"):
        assert grade([(kind, answer, EXAMPLES[kind][1])])[0].correct in (True, False)
    assert choice.first_letter(answer) is None or choice.first_letter(answer).isalpha()


@pytest.mark.parametrize("kind", ["choice", "keywords", "tool_call", "math"])
@pytest.mark.parametrize(
    "answer",
    [
        "(" * 50_000,
        "not " * 30_000,
        "answer is " * 20_000,
        "A or " * 30_000,
        "\\boxed{" * 9000,
        " " * 150_000,
        "A\n" * 60_000,
        "<tool_call>" * 10_000,
        "*" * 150_000,
        "[" * 150_000,
        "answer" + " " * 100_000 + "x",
        "$" * 100_000,
    ],
)
def test_long_answers_do_not_hang_an_extractor(kind, answer):
    before = os.times().user
    assert grade([(kind, answer, EXAMPLES[kind][1])])[0].correct is False
    assert os.times().user - before < 5  # processor time, not the clock: quadratic work is minutes


# ---- soak ----------------------------------------------------------------------------------------


def children():
    """Process ids whose parent is this process."""
    path = f"/proc/{os.getpid()}/task"
    found = set()
    for task in os.listdir(path):
        with open(f"{path}/{task}/children") as file:
            found |= set(file.read().split())
    return found


def resident():
    """Resident memory of this process in MiB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def mixed(rng, n):
    """n rows of every kind in the shape of rollout groups, some hostile, most of them new."""
    rows = []
    for _ in range(n):
        k, x = rng.random(), rng.randint(0, 10**6)
        if k < 0.55:
            rows.append(("math", rng.choice([f"{x}", f"the answer is {x}.", f"{x}" * 40]), f"{x}"))
        elif k < 0.56:
            rows.append(("math", rng.choice(["x+1", "1+x", "2x", "9^{9^9}"]), "x+1"))
        elif k < 0.70:
            rows.append(("choice", rng.choice(["A", "Answer: B", f"none {x}"]), {"answer": "B"}))
        elif k < 0.85:
            rows.append(("keywords", f"cup {rng.choice('ABC')} {x}", {"all": ["cup C"]}))
        elif k < 0.99:
            rows.append(("tool_call", call(a=1, b=rng.randint(1, 3)), ADD))
        else:
            answer = rng.choice(["lambda x: x * x", "lambda x: 9", f"lambda x: {x}", "lambda x:"])
            rows.append(("code", answer, SQUARE))
    return rows


def test_20_000_mixed_verdicts_leave_memory_and_processes_as_they_were():
    rng = random.Random(0)
    for _ in range(10):  # caches, imports and the worker come up
        grade(mixed(rng, 500))
    before, memory, descriptors = children(), resident(), len(os.listdir("/proc/self/fd"))
    counts = {True: 0, False: 0, None: 0}
    for _ in range(30):
        for graded in grade(mixed(rng, 500)):
            counts[graded.correct] += 1
    assert sum(counts.values()) == 15_000 and min(counts[True], counts[False]) > 3000
    # Unscorable: without isolation the code, else at most what a starved machine cost.
    assert counts[None] <= (15 if isolation.choose().name != "none" else 400)
    assert resident() - memory < 16
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert children() <= before | {str(math_pool._worker.process.pid)}
    assert len(code._cache) <= code.CACHE_SIZE
