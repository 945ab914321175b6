"""What a critic can check in a thought without knowing the task: equations between numbers.

Only an equation that is read whole and provably false is named. What may be the tail or the head of
something longer ("x + 3 - 1 = 4", "3·4+1=13", "7+6=1 mod 12") is let pass.

    equations.false_equations("10-3+2=9, so 9*2=19")  # ["9*2=19"]
"""

import re
from fractions import Fraction
from itertools import pairwise

_SIGNED = r"(?:[-+−][ \t]*)?\d+(?:,\d{3})*(?:\.\d+)?"
_RUN = re.compile(rf"{_SIGNED}(?:[ \t]*[-+*/×÷−][ \t]*{_SIGNED})*")
_LONE = re.compile(_SIGNED)
_PLAIN = str.maketrans("−×÷", "-*/")
_PART = re.compile(r"(^|[-+*/])([-+]?[\d.]+)")
_WORDS = "so|then|thus|hence|therefore|that|is|because|since|now|gives|means|have|get|check|but"
_BEFORE = re.compile(  # where an equation may begin
    rf"(?:^|[.:;,!?]\s|[:;$`\"'“]|\\[(\[]|(?:^|\s)(?:{_WORDS})\s)\s*$", re.IGNORECASE
)
_AFTER = re.compile(  # what the right side would be the head of
    r"\w|[.,]\d|\.\.|…|\s*(?:[-+*/×÷−·⋅∙^!%(]|\\(?![)\]])|(?:x|mod)\b)"
)


def false_equations(text: str) -> list[str]:
    """The equations "number operator number ... = number" in a text that do not hold.

    A right side rounded after a division or a product of decimals ("10/3=3.33") holds to half a
    unit of its last digit; a line's leading "- " may be a bullet or a sign.
    """
    found = []
    for line in text.splitlines():
        for left, right in pairwise(_RUN.finditer(line)):
            joined = line[left.end() : right.start()].strip() == "="
            if not joined or _LONE.fullmatch(left[0]) or not _LONE.fullmatch(right[0]):
                continue
            before = line[: left.start()]
            bullet = left[0] if before.strip() else left[0].lstrip("-−")
            if any(_holds(side, right[0]) for side in (left[0], bullet)):
                continue
            if _BEFORE.search(before) and not _AFTER.match(line, right.end()):
                found.append(line[left.start() : right.end()])
    return found


def _holds(left: str, right: str) -> bool:
    try:
        off = abs(_value(left) - _value(right))
    except (ZeroDivisionError, ValueError):  # or a number of more digits than Python reads
        return True
    rounds = re.search(r"[/÷]|\..*[*×]|[*×].*\.", left)
    return off <= (Fraction(1, 2 * 10 ** len(right.partition(".")[2])) if rounds else 0)


def _value(expression: str) -> Fraction:
    """Exact value of numbers joined by operators, products first."""
    plain = re.sub(r"[,\s]", "", expression).translate(_PLAIN)
    total, product = Fraction(0), Fraction(0)
    for operator, number in _PART.findall(plain):
        if operator == "*":
            product *= Fraction(number)
        elif operator == "/":
            product /= Fraction(number)
        else:
            total += product
            product = -Fraction(number) if operator == "-" else Fraction(number)
    return total + product
