"""What a critic can check in a thought without knowing the task: equations between numbers.

Only an equation that is read whole and provably false is named; a left side that begins inside a
longer expression ("x + 3 - 1 = 4", "f(2) + 1 = 5") is let pass.

    checks.false_equations("10-3+2=9, so 9*2=19")  # ["9*2=19"]
"""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
_SIGNED = rf"(?:[-+−]\s*)?{_NUMBER}"
_CHAIN = re.compile(
    rf"(?P<left>{_SIGNED}(?:\s*[-+*/×÷−]\s*{_SIGNED})+)\s*=\s*(?P<right>{_SIGNED})"
    r"(?!\s*[-+*/×÷−^!%(]|[\w.,]\d|\w)"
)
_WITHIN = re.compile(r"[\w.)\]}^_=+*/×÷−(\\-]\s*$")  # what the left side would be the tail of
_WORD = re.compile(r"(?:^|\s)[A-Za-z]{2,}\s+$")  # "so 3+4=7" begins after a word
_BREAK = re.compile(r"(?:^|[:;,])\s*$")  # only here may a sign belong to the first number
_OPERATORS: dict[type, Callable] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_BULLET = re.compile(r"^[-+−]\s+")  # "- 3+5=8" is a line of a list


def false_equations(text: str) -> list[str]:
    """The equations "number operator number ... = number" in a text that do not hold.

    A rounded right side ("10/3=3.33") holds to half a unit of its last digit.
    """
    found = []
    for match in _CHAIN.finditer(text):
        before = text[: match.start()].rsplit("\n", 1)[-1]
        signed = match["left"][0] in "+-−"
        within = not _WORD.search(before) and _WITHIN.search(before)
        if within or (signed and not _BREAK.search(before)):
            continue
        shown = match["left"] if before.strip() else _BULLET.sub("", match["left"])
        left, right = _value(shown), _value(match["right"])
        digits = len(match["right"].partition(".")[2])
        slack = Fraction(1, 2 * 10**digits) if "/" in match["left"] or "÷" in match["left"] else 0
        if left is not None and abs(left - right) > slack:
            found.append(match[0])
    return found


def _value(expression: str) -> Fraction | None:
    """Exact value of an arithmetic expression; None where it divides by zero."""
    plain = expression.replace(",", "").replace("×", "*").replace("÷", "/").replace("−", "-")
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", plain)  # Python reads no leading zeros
    try:
        return _walk(ast.parse(plain.strip(), mode="eval").body)
    except ZeroDivisionError:
        return None


def _walk(node) -> Fraction:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_walk(node.left), _walk(node.right))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_walk(node.operand))
    return Fraction(str(node.value))
