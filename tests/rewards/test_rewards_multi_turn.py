"""The multi_turn verifier: the last turn by its kind, with the history."""

import pytest
from rewards.examples import ADD, TOOLS, call

from katlab.rewards import grade, multi_turn

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
        {"kind": "math", "reference": "1", "history": "2+2?"},
    ],
)
def test_an_unusable_multi_turn_reference_is_unscorable(reference):
    assert grade([("multi_turn", "1", reference)])[0].correct is None


def test_a_verifier_of_ones_own_that_raises_over_the_history_is_unscorable(tmp_path):
    file = tmp_path / "fails.py"
    file.write_text("def verify(answer, reference, history):\n    return history[7]\n")
    reference = {"kind": str(file), "reference": None, "history": HISTORY}
    (verdict,) = grade([("multi_turn", "14", reference)])
    assert verdict.correct is None and "IndexError" in verdict.reason


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
