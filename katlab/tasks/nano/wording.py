"""The wording that nano's models were trained on, and nothing else.

wording.is_nanos({"messages": [{"role": "user", "content": "Compute 4+9."}]})  # True
wording.WORKED.search("46+38: 14 84")  # a line of a thought
"""

import re

CHANGES = r"(?:[+-]\d+)+"
FACTORS = r"\d+(?:\*\d+)+"
AMOUNTS = r"(?: [A-D] \d+(?:\+\d+)?)+"
TURNS = {  # what a user says, by the category that says it
    "code": r"Write f: [xyzn](?: (?:[+-]|\*)\d+)+\.",
    "math": rf"(?:Compute|Find|Work out) (?:-?\d+{CHANGES}|{FACTORS}(?:{CHANGES})?)\.",
    "science": rf"Largest (?:mass in g|length in m|time in s|charge in C)\?{AMOUNTS}",
    "general": r"[A-Z]+: [a-z]+(?: [a-z]+)*(?:, [a-z]+(?: [a-z]+)*)*\.",
    "multi_turn": rf"Dial at \d\.|Turn {CHANGES}\.(?: Where\?)?",
    "tool_use": rf"The (?:heat|light|fan) is at \d+\. Set it to \d+{CHANGES}\.",
}
TURN = re.compile("|".join(TURNS.values()))
# A line of a thought: a column, what cancels, an operation, an option, a change of a word.
WORKED = re.compile(
    r"(?m)^(?:\d+[-+*]\d+: .+|[-+]\d+[-+]\d+=0|[-+*]\d+: .+|[A-D] \d.*"
    r"|[a-z]+(?: [a-z]+)* [A-Z]+)$"
)


def is_nanos(row: dict) -> bool:
    """Whether every turn of the user in a query row is in the nano world's wording."""
    said = [m["content"] for m in row["messages"] if m["role"] in ("user", "system")]
    return all(TURN.fullmatch((text or "").strip()) for text in said)
