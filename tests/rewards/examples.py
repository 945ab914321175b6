"""References and right answers that several of these tests use."""

import json

ABCD = {"options": ["A", "B", "C", "D"]}
PLANETS = {"options": ["Venus", "Mars", "A moon", "Io"]}
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


SQUARE = {"entry": "f", "tests": [{"args": [3], "expected": 9}]}
EXAMPLES = {  # kind: (right answer, reference)
    "math": ("12", "12"),
    "choice": ("B", {"answer": "B", **ABCD}),
    "keywords": ("cup C", {"all": ["cup C"]}),
    "tool_call": (call(a=1, b=2), ADD),
    "code": ("lambda x: x * x", SQUARE),
    "multi_turn": ("14", {"kind": "math", "reference": "14"}),
}
