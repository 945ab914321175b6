"""The wording that nano's models were trained on, and nothing else.

wording.is_nanos({"messages": [{"role": "user", "content": "Compute 4+9."}]})  # True
"""

import re

CHANGES = r"(?:[+-]\d+)+"
TURNS = {  # what a user says, by the category that says it
    "code": r"Write f: [xyzn](?: (?:[+-]|\*)\d+)+\.",
    "math": rf"(?:Compute|Find|Add up) -?\d+{CHANGES}\.",
    "science": rf"(?:Luna|Io|Titan|Rhea) day \d+, then {CHANGES}\. A new B half C full D last",
    "general": rf"(?:Ann|Bob|Eve) has \d+ (?:apples|coins|books), then {CHANGES}\. How many\?",
    "multi_turn": rf"Keep a total: \d+\.|Then {CHANGES}\.",
    "tool_use": rf"The (?:heat|light|fan) is at \d+\. Set it to \d+{CHANGES}\.",
}
TURN = re.compile("|".join(TURNS.values()))


def is_nanos(row: dict) -> bool:
    """Whether every turn of the user in a query row is in the nano world's wording."""
    said = [m["content"] for m in row["messages"] if m["role"] in ("user", "system")]
    return all(TURN.fullmatch((text or "").strip()) for text in said)
