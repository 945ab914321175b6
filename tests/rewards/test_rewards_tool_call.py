"""The tool_call verifier: what parses, and what equals the reference under its schema."""

import sys

import pytest
from rewards.examples import ADD, TOOLS, call

from katlab.rewards import grade, tool_call


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
