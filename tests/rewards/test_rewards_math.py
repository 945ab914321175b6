"""The math verifier: exact path, known faults of math-verify, bounds, deadlines, any thread."""

import os
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katlab.rewards import grade, math, math_pool


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A deadline that a sane comparison keeps on the busiest machine."""
    monkeypatch.setattr(math, "DEADLINE", 20.0)


def verdict(gold, answer):
    return math.verify(answer, gold)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", Fraction(12)),
        ("-7", Fraction(-7)),
        ("1,234", Fraction(1234)),
        ("0.25", Fraction(1, 4)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        ("3/0", None),
        ("12,34", None),
        ("1.5/2", None),
        ("x", None),
        ("", None),
        ("9" * 300, None),
    ],
)
def test_exact_reads_only_what_is_fully_a_number(text, value):
    assert math.exact(text) == value


@pytest.mark.parametrize(
    ("answer", "submitted"),
    [
        ("12", "12"),
        ("The answer is 12.", "12"),
        ("so 3 + 9 = 12, the answer is: $12$", "12"),
        (r"thus \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{2}, again \boxed{2}", "2"),
        (r"\boxed{2} or \boxed{3}", ["2", "3"]),
        ("#### 8", "8"),
        ("The answer is 12. It follows from 3 + 9.", "12"),
        ("The answer is $12.5$ because 12.5 > 3", "12.5"),
        ("The answer is (1, 2).", "(1, 2)"),
        (r"\boxed{1", ""),
        ("", ""),
    ],
)
def test_final_answer(answer, submitted):
    assert math.final_answer(answer) == submitted


# Reproduced on math-verify 0.9.0, which calls each pair equal.
FALSE_POSITIVES = [
    ("1-1/e", "1+1/e"),
    ("4", r"4\sqrt(2)"),
    ("4", r"4\sqrt{2}"),
    ("3*x-y+13=0", "3x+4y+14=0"),
    ("f(x)=0", r"\forall x>0, f(x)=0"),
    ("1/2^99", "1/2^98"),
    (r"1,2,\ldots,n", r"1,3,5,\ldots,2n-1"),
    ("5", "y=4=5"),
]


@pytest.mark.parametrize(("gold", "answer"), FALSE_POSITIVES)
def test_false_positives_of_the_library_are_wrong(gold, answer):
    assert verdict(gold, answer).correct is False
    assert verdict(answer, gold).correct is not True
    assert verdict(gold, rf"\boxed{{{answer}}}").correct is False
    assert verdict(gold, f"${answer}$").correct is False
    assert verdict(gold, gold).correct is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("sqrt(1/n)", "1/sqrt(n)"),  # the library's false negative
        (r"\sqrt{\frac{1}{n}}", r"\frac{1}{\sqrt{n}}"),
        ("1/2", "0.5"),
        ("12", "12.0"),
        ("x^2-1", "(x-1)(x+1)"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("x=3", "3"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        (r"\pi/2", r"\frac{\pi}{2}"),
        ("5", r"5 \text{ cm}"),
        ("90", r"90^\circ"),
        ("1/3", "0.333333"),
        (r"\{2,3\}", r"\boxed{2} and \boxed{3}"),
        ("50\\%", "50%"),
        ("x>3", "3<x"),
        ("12", "3 + 9 = 12"),
        ("12", "x = 3 + 9 = 12"),
        (12, "12"),
    ],
)
def test_equal_answers_are_correct(gold, answer):
    assert verdict(gold, answer).correct is True


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("12", "13"),
        ("12", r"\boxed{12} or \boxed{13}"),
        ("x", "|x|"),
        ("x", r"\sqrt{x^2}"),
        ("1/3", "0.33"),
        ("12", "<think>12</think>"),
        ("12", "<think>12</think><answer></answer>"),
        ("12", "<answer>12"),
        ("12", "12 12"),
        ("(1,2)", "(2,1)"),
    ],
)
def test_unequal_answers_are_wrong(gold, answer):
    assert verdict(gold, answer).correct is False


HOSTILE = [
    "9^{9^{9}}",
    "10^{10^{10}}",
    "9**9**9",
    "100000000!",
    "((3!)!)!",
    r"\binom{1000000000}{500000000}",
    r"\sum_{i=1}^{1000000000} i",
    r"\sin(10^{10^{9}})",
    "(" * 3000 + "1" + ")" * 3000,
    r"\frac{1}{" * 400 + "1" + "}" * 400,
    r"\sqrt{" * 100 + "2" + "}" * 100,
    "1" * 100_000,
    "x" * 100_000,
    "7^" * 40 + "7",
    "(" * 20 + "x+1" + ")^9" * 20,
    r"\int_0^{99999} x^x \sin(x^x) dx",
    "__import__('os').system('true')",
    "\0\\boxed{\0}",
    r"\log(" * 20 + "10^{99999}" + ")" * 20,
]


def test_pathological_answers_cost_their_own_slot_only(monkeypatch):
    monkeypatch.setattr(math, "DEADLINE", 1.0)
    math._cache.clear()
    sane = [("math", f"{k}x+x", f"{k + 1}x") for k in range(2, 12)]
    verdicts = grade([("math", answer, "2") for answer in HOSTILE] + sane)
    # Unscorable is allowed only where this machine starved the comparison of processor time.
    for answer, one in zip(HOSTILE, verdicts, strict=False):
        assert one.correct is not True, answer[:40]
        assert one.correct is False or one.detail["state"] == "starved", (answer[:40], one)
    assert all(one.correct for one in verdicts[len(HOSTILE) :])


def test_a_child_past_its_deadline_is_killed_and_its_slot_serves_on():
    slow = r"\int_0^{99999} x^x \sin(x^x) dx"
    states = math_pool.compare([("2", slow)] * 4 + [("x+1", "1+x")], 1.0)
    assert {state for state, _ in states[:4]} <= {"timeout", "starved"}
    assert states[4][0] == "equal"
    assert math_pool.compare([("2x", "x+x")], 5.0)[0][0] == "equal"


def test_a_reference_that_does_not_parse_is_unscorable():
    assert verdict(r"\frac{", "1").correct is None
    assert verdict("", "1").correct is None
    assert verdict(None, "1").correct is None
    assert verdict("4=5", "5").correct is None
    assert verdict("9" * 300, "1").correct is None  # beyond bounds is the row's fault here


def test_without_math_verify_only_the_exact_path_scores(monkeypatch):
    math_pool.close()
    math._cache.clear()
    monkeypatch.setattr(
        math_pool, "COMMAND", [*math_pool.COMMAND[:1], "-S", *math_pool.COMMAND[1:]]
    )
    assert verdict("12", "12").correct is True
    missing = verdict("a+b", "b+a")
    assert missing.correct is None and "pip install math-verify" in missing.reason
    assert math.doctor()[0][1] is False


def test_a_killed_worker_is_unscorable_once_and_then_restarted():
    assert math_pool.compare([("2x", "x+x")], 5.0)[0][0] == "equal"
    process = math_pool._worker.process
    process.kill()
    process.wait()
    assert math_pool.compare([("2x", "x+x")], 5.0)[0][0] == "gone"
    assert math_pool.compare([("2x", "x+x")], 5.0)[0][0] == "equal"


def test_from_many_threads_in_order():
    results = {}

    def work(k):
        rows = [("math", f"{i}y+{k}", f"{k}+{i}y") for i in range(2, 8)]
        results[k] = [v.correct for v in grade(rows + [("math", f"{k}", f"{k + 1}")])]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(results[k] == [True] * 6 + [False] for k in range(6))


def test_a_forked_rank_gets_its_own_worker():
    assert math_pool.compare([("2x", "x+x")], 5.0)[0][0] == "equal"
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        state = math_pool.compare([("3x", "x+2x")], 5.0)[0][0]
        os.write(write, state.encode())
        math_pool.close()
        os._exit(0)
    os.close(write)
    assert os.read(read, 100) == b"equal"
    os.waitpid(pid, 0)
    os.close(read)
    assert math_pool.compare([("4x", "x+3x")], 5.0)[0][0] == "equal"


text = st.text(
    alphabet=st.sampled_from(list("0123456789.,/-+=^_{}()[]\\$! xyfracboxednswerai:#√π…\n"))
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(text, st.text()))
def test_extraction_never_fails_and_normalising_twice_changes_nothing(answer):
    submitted = math.final_answer(answer)
    for part in [submitted] if isinstance(submitted, str) else submitted:
        assert math.normalise(part) == math.normalise(math.normalise(part)) == part
    math.exact(answer)
    math.beyond_bounds(answer)
    found = math.quick(submitted, "12")
    assert found is None or found[0] in (True, False)


@settings(max_examples=200, deadline=None)
@given(st.fractions(max_denominator=10_000))
def test_every_rational_equals_itself_however_written(value):
    forms = [f"{value}", f"$ {value} $", rf"\boxed{{{value}}}", f"the answer is {value}"]
    for form in forms:
        assert math.quick(math.final_answer(form), str(value)) == (True, "same string")
    off = math.quick(math.final_answer(f"{value + 1}"), str(value))
    assert off is None or off[0] is False
