"""Choice, keywords, tool calls, multi-turn, the classifier, `grade`, `katlab verify`, the soak."""

import json
import os
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katlab import UserError
from katlab.rewards import (
    Verdict,
    answer_span,
    choice,
    classifier,
    cli,
    code,
    doctor,
    grade,
    keywords,
    kinds,
    math_pool,
    multi_turn,
    tool_call,
    verifier,
)
from katlab.rewards.sandbox import isolation

ABCD = {"options": ["A", "B", "C", "D"]}
PLANETS = {"options": ["Venus", "Mars", "A moon", "Io"]}

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
    assert answer_span(once) == once and "<answer>" not in once


# ---- multiple choice -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B.", "B"),
        ("B. Mars", "B"),
        ("B) it is red", "B"),
        (r"\boxed{B}", "B"),
        (r"$\boxed{\text{B}}$", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{B. Mars}", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B), since Mars is red", "B"),
        ("The correct answer is: B", "B"),
        ("Answer: B", "B"),
        ("Answer: b", "B"),
        ("answer is B because of A", "B"),
        ("answer is B. Note A is close.", "B"),
        ("Option B is correct.", "B"),
        ("B is the right answer", "B"),
        ("Not B, so C.", "C"),
        ("It is not B, the answer is D", "D"),
        ("A and C are wrong, therefore B.", "B"),
        ("The answer is A. No, wait, the answer is B.", "B"),
        ("A cat sat on the mat", None),
        ("A planet, I think", None),
        ("The answer is a cat", None),
        ("I am not sure", None),
        ("A. Venus\nB. Mars\nC. A moon\nD. Io", None),
        ("(A) Venus (B) Mars (C) A moon (D) Io", None),
        ("Answer: A or B", None),
        ("Answer: A\nAnswer: B", None),
        (r"\boxed{A} \boxed{B}", None),
        ("Answer seems to be A", None),
        ("not B", None),
        ("", None),
    ],
)
def test_the_submitted_letter(answer, letter):
    for gold in "ABCD":
        verdict = choice.verify(answer, {"answer": gold, **ABCD})
        assert verdict.correct is (gold == letter), (gold, verdict)


def test_a_letter_outside_the_options_is_wrong():
    verdict = choice.verify("The answer is E", {"answer": "B", **ABCD})
    assert verdict.correct is False and "not an option" in verdict.reason
    assert choice.verify("E", {"answer": "E", "options": 5}).correct is True
    assert choice.verify("E", "E").correct is True


def test_an_options_text_submits_its_letter():
    assert choice.verify("mars", {"answer": "B", **PLANETS}).correct is True
    assert choice.verify(r"\boxed{\text{Mars}}", {"answer": "B", **PLANETS}).correct is True
    assert choice.verify("A moon", {"answer": "C", **PLANETS}).correct is True
    assert choice.verify("A moon", {"answer": "A", **PLANETS}).correct is False


def test_after_the_thought_an_empty_answer_is_wrong():
    completion = "<think_on>\n<think>\nB\n</think>\n\n<answer>\n\n</answer>"
    assert choice.verify(completion, {"answer": "B", **ABCD}).correct is False


def test_the_reports_rule_is_a_switch():
    rule = {"answer": "A", **ABCD, "rule": "first_letter"}
    assert choice.verify("A cat", rule).correct is True  # its fault, kept on purpose
    assert choice.verify("not B, so C", rule | {"answer": "C"}).correct is False
    with pytest.raises(UserError, match="anchored"):
        choice.verify("A", rule | {"rule": "first"})


@pytest.mark.parametrize("reference", [None, {}, {"answer": "F", **ABCD}, {"answer": 2}])
def test_an_unusable_choice_reference(reference):
    with pytest.raises(UserError):
        choice.verify("A", reference)
    assert grade([("choice", "A", reference)])[0].correct is None


# ---- keywords ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "correct"),
    [
        ("It is in cup C.", {"all": ["cup C"]}, True),
        ("It is in Cup  c", {"all": ["cup C"]}, True),
        ("It is in cup CD", {"all": ["cup C"]}, False),
        ("It is not in cup C", {"all": ["cup C"]}, False),
        ("not cup B but cup C", {"all": ["cup C"]}, True),
        ("cup A, cup B, cup C", {"all": ["cup C"], "none": ["cup A", "cup B"]}, False),
        ("red", {"any": ["red", "blue"]}, True),
        ("green", {"any": ["red", "blue"]}, False),
        ("red and green", {"overlap": {"keywords": ["red", "green", "blue"], "min": 0.6}}, True),
        ("red", {"overlap": {"keywords": ["red", "green", "blue"], "min": 0.6}}, False),
        ("Yes: [x]", {"contains": ["[x]"], "starts": "Yes", "ends": "]"}, True),
        ("yes: [x]", {"starts": "Yes"}, False),
        ("a-a-a", {"count": {"a": 3}}, True),
        ("a-a-a", {"count": {"a": [0, 2]}}, False),
        ("one two three", {"words": 3}, True),
        ("one two", {"words": [3, 9]}, False),
        ("One. Two!", {"sentences": 2, "lines": 1}, True),
        ('{"a": [1, 2]}', {"json": True}, True),
        ('```json\n{"a": 1.0}\n```', {"json": {"a": 1}}, True),
        ('{"a": true}', {"json": {"a": 1}}, False),
        ("{'a': 1}", {"json": True}, False),
        ("[" * 100_000, {"json": True}, False),
        ("", {"none": ["x"]}, False),
    ],
)
def test_keyword_checks(answer, reference, correct):
    assert keywords.verify(answer, reference).correct is correct


@pytest.mark.parametrize("reference", [None, {}, {"al": ["x"]}, "cup C", {"all": "cup C"}])
def test_an_unusable_keywords_reference(reference):
    assert grade([("keywords", "x", reference)])[0].correct is None


def test_the_classifier_is_a_switch_and_unscorable_when_missing(tmp_path):
    path = tmp_path / "classifier.json"
    good = ["the ball is in the cup", "it is in cup A", "look in the left cup"]
    poor = ["who knows", "no idea at all", "who can tell"]
    assert classifier.fit(good + poor, [1] * 3 + [0] * 3, path) == 1.0
    reference = {"classifier": {"path": str(path)}}
    verdict = keywords.verify("in the cup", reference)
    assert verdict.correct is True and verdict.detail["score"] > 0.5
    assert keywords.verify("who knows at all", reference).correct is False
    missing = keywords.verify("in the cup", {"classifier": {"path": str(tmp_path / "none")}})
    assert missing.correct is None and "fit one" in missing.reason


def test_a_folder_of_a_sequence_classifier_serves_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"[UNK]": 0, "cup": 1, "ball": 2}, unk_token="[UNK]")
    inner = tokenizers.Tokenizer(words)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=3,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
        num_labels=2,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    score = classifier.score("ball cup", tmp_path)
    assert 0.0 < score < 1.0 and score == classifier.score("ball cup", tmp_path)


# ---- tool calls ----------------------------------------------------------------------------------

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "number"},
                    "b": {"type": "integer"},
                    "mode": {"type": "string", "default": "plain", "pattern": "^(a+)+$|plain"},
                },
                "required": ["a", "b"],
                "additionalProperties": False,
            },
        },
    },
    {"name": "now", "parameters": {}},
]
ADD = {"name": "add", "arguments": {"a": 1, "b": 2}, "tools": TOOLS}


def call(name="add", **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.mark.parametrize(
    ("answer", "correct"),
    [
        (call(a=1, b=2), True),
        ("I add them.\n" + call(a=1, b=2), True),
        (call(b=2, a=1.0), True),
        (call(a=1, b=2, mode="plain"), True),
        (call(a=1, b=2, mode="a" * 40 + "!"), False),
        (call(a=1, b=3), False),
        (call(a="1", b=2), False),
        (call(a=True, b=2), False),
        (call(a=1), False),
        (call(a=1, b=2, c=3), False),
        (call("now", a=1, b=2), False),
        (call("sub", a=1, b=2), False),
        (call(a=1, b=2) * 2, False),
        (call(a=1, b=3) + call(a=1, b=2), False),
        (call(a=1, b=2)[:-3], False),
        ('{"name": "add", "arguments": {"a": 1, "b": 2}}', False),
        ('<tool_call>{"name": "add", "arguments": {"a": 1, "a": 1, "b": 2}}</tool_call>', False),
        ('<tool_call>{"name": "add", "arguments": {"a": NaN, "b": 2}}</tool_call>', False),
        ('<tool_call>{"name": "add", "arguments": "{}"}</tool_call>', False),
        ("<tool_call>" + "[" * 9000 + "</tool_call>", False),
        ("<tool_call></tool_call>", False),
        ("", False),
    ],
)
def test_tool_calls(answer, correct):
    assert tool_call.verify(answer, ADD).correct is correct


def test_several_calls_are_compared_in_order():
    wanted = {"calls": [{"name": "now", "arguments": {}}, ADD], "tools": TOOLS}
    assert tool_call.verify(call("now") + call(a=1, b=2), wanted).correct is True
    assert tool_call.verify(call(a=1, b=2) + call("now"), wanted).correct is False


def test_a_reference_that_breaks_its_schema_is_unscorable():
    broken = ADD | {"arguments": {"a": 1, "b": "x"}}
    assert tool_call.verify(call(a=1, b="x"), broken).correct is None
    assert tool_call.verify(call(a=1, b="y"), broken).correct is False
    assert grade([("tool_call", call(), {})])[0].correct is None


def test_without_jsonschema_a_tool_call_is_unscorable(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    verdict = tool_call.verify(call(a=1, b=2), ADD)
    assert verdict.correct is None and "pip install jsonschema" in verdict.reason


# ---- multi-turn ----------------------------------------------------------------------------------

HISTORY = [
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "and 10 more?"},
]


def test_the_last_turn_is_graded_by_its_kind():
    reference = {"kind": "math", "reference": "14", "history": HISTORY}
    rows = [("multi_turn", answer, reference) for answer in ("14", "4")]
    assert [v.correct for v in grade(rows)] == [True, False]
    calls = {
        "kind": "tool_call",
        "reference": {k: ADD[k] for k in ("name", "arguments")},
        "history": [{"role": "system", "content": "", "tools": TOOLS}, *HISTORY],
    }
    assert multi_turn.verify(call(a=1, b=2), calls).correct is True
    assert multi_turn.verify(call("gone", a=1, b=2), calls).correct is False


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"kind": "math", "reference": "1", "history": HISTORY[:2]},
        {"kind": "multi_turn", "reference": {}},
        {"kind": "maths", "reference": "1"},
    ],
)
def test_an_unusable_multi_turn_reference_is_unscorable(reference):
    assert grade([("multi_turn", "1", reference)])[0].correct is None


def test_a_verifier_of_ones_own_is_given_the_history(tmp_path):
    file = tmp_path / "repeats.py"
    file.write_text(
        "from katlab.rewards import Verdict\n\n\ndef verify(answer, reference, history):\n"
        "    said = [m['content'] for m in history if m['role'] == 'assistant']\n"
        "    return Verdict(answer not in said, 'repeats' if answer in said else 'new')\n"
    )
    reference = {"kind": str(file), "reference": None, "history": HISTORY}
    rows = [("multi_turn", answer, reference) for answer in ("14", "4")]
    assert [v.correct for v in grade(rows)] == [True, False]


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
    verdicts = grade(rows, files={"roman": str(file)})
    assert [v.correct for v in verdicts] == [True, True, False, None]
    assert "KeyError" in verdicts[3].reason
    assert grade([(str(file), "<answer>IX</answer>", 9)])[0].correct is True


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


def test_every_kind_states_what_it_accepts():
    for kind in kinds():
        module = verifier(kind)
        assert "Accepts:" in module.__doc__ and "Usage:" in module.__doc__
        assert isinstance(module.verify("<think>1</think>", EXAMPLES[kind][1]), Verdict)


SQUARE = {"entry": "f", "tests": [{"args": [3], "expected": 9}]}
EXAMPLES = {  # kind: (right answer, reference)
    "math": ("12", "12"),
    "choice": ("B", {"answer": "B", **ABCD}),
    "keywords": ("cup C", {"all": ["cup C"]}),
    "tool_call": (call(a=1, b=2), ADD),
    "code": ("lambda x: x * x", SQUARE),
    "multi_turn": ("14", {"kind": "math", "reference": "14"}),
}


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


# ---- katlab verify -------------------------------------------------------------------------------


def test_a_file_is_graded_and_bad_rows_are_listed_by_line(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    rows = [
        json.dumps({"kind": "math", "answer": "12", "reference": "12"}),
        "{broken",
        "",
        json.dumps({"kind": "math", "answer": "12", "reference": "13"}),
        json.dumps({"verifier": "choice", "answer": "B", "reference": {"answer": "B"}}),
        json.dumps({"kind": "maths", "answer": "12", "reference": "12"}),
        json.dumps({"kind": "math", "reference": "12"}),
        json.dumps([1]),
        json.dumps({"kind": "choice", "answer": "B", "reference": {"answer": "Z", **ABCD}}),
    ]
    file.write_text("\n".join(rows))
    assert cli.verify_file(file, tmp_path / "out.jsonl") == 1
    out, err = capsys.readouterr()
    table = {line.split()[0]: line.split()[1:5] for line in out.splitlines()}
    assert table["math"] == ["2", "1", "1", "0"]
    assert table["choice"] == ["2", "1", "0", "1"]
    assert table["total"] == ["4", "2", "1", "1"]
    assert [line.split(":")[0] for line in err.splitlines()] == [
        "line 2",
        "line 6",
        "line 7",
        "line 8",
        "line 9",
    ]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [w["line"] for w in written] == [1, 4, 5, 9]
    assert [w["verdict"] for w in written] == ["correct", "wrong", "correct", "unscorable"]


def test_the_sample_file_holds_every_kind(capsys):
    sample = os.path.join(
        os.path.dirname(__file__), "..", "data_samples", "verify", "answers.jsonl"
    )
    assert cli.verify_file(sample) in (0, 1)
    out = capsys.readouterr().out
    assert all(kind in out for kind in kinds())


def test_a_missing_or_empty_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        cli.verify_file(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no row"):
        cli.verify_file(tmp_path / "empty.jsonl")


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
        for verdict in grade(mixed(rng, 500)):
            counts[verdict.correct] += 1
    assert sum(counts.values()) == 15_000 and min(counts[True], counts[False]) > 3000
    # Unscorable: without isolation the code, else at most what a starved machine cost.
    assert counts[None] <= (15 if isolation.choose().name != "none" else 400)
    assert resident() - memory < 16
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert children() <= before | {str(math_pool._worker.process.pid)}
    assert len(code._cache) <= code.CACHE_SIZE
