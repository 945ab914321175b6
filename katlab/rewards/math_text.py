r"""Math answers as text in their normal form, and the numbers that they write.

Nothing here changes a value: blanks are kept between digits and letters, a line break of a matrix
stays, Unicode signs become their LaTeX commands, and what was written as text ("12 \text{cm}",
"12元") stays text. `normalise` applied twice changes nothing.
Usage: `normalise(r"\text{12}\,")` gives "12"
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

from katlab.rewards import text as texts

MAX_CHARS, MAX_DIGITS = 2000, 200
LONG = 5 * MAX_CHARS  # beyond all bounds: never compared
_SIGNS = str.maketrans(
    {
        "∞": r"\infty ",
        "°": r"^\circ ",
        "º": r"^\circ ",
        "˚": r"^\circ ",
        "℃": r"^\circ\text{C}",
        **dict.fromkeys("€£¥\uffe5₹₩"),  # currencies, as the dollar
        "∪": r"\cup ",
        "∩": r"\cap ",
        "∈": r"\in ",
        "∅": r"\emptyset ",
        "≈": r"\approx ",
        "△": r"\triangle ",
        "⌊": r"\lfloor ",
        "⌋": r"\rfloor ",
        "⌈": r"\lceil ",
        "⌉": r"\rceil ",
        "∨": r"\text{ or }",
        "≡": r"\equiv ",
        "∶": ":",
        "→": "->",
        "⇒": "->",
        "➜": "->",
        "≠": r"\neq ",
        "ℝ": r"\mathbb{R}",
        "×": "*",
        "·": "*",
        "⋅": "*",
        "÷": "/",
        "\u2044": "/",
        "\u2009": r"\,",
        "\u202f": r"\,",
        "\u2026": r"\ldots ",
    }
)
_SMALL = re.compile("([\u2070\u00b9\u00b2\u00b3\u2074-\u207f]+)|([\u2080-\u208e]+)")
_PART = re.compile("[\u00bc-\u00be\u2150-\u215e]")  # 1/2 and the like in one character
_ROOT = re.compile(r"([√∛∜])\s*(\d+(?:\.\d+)?|[A-Za-z]|\{[^{}]*\}|\([^()]*\))")
_ROOTS = {"√": "", "∛": "[3]", "∜": "[4]"}
# A single backslash before a blank or a bracket; after an even run it belongs to a line break.
_SPACING = re.compile(
    r"(?<!\\)((?:\\\\)*)\\(?:[,;:!\s()\[\]]|(?:left|right|displaystyle|quad|qquad)(?![A-Za-z]))"
)
_BREAK = re.compile(r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm)\s*\]")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|,\\!|\\,|\\!)\d{3})+(?!\d)")
_BLANK_GROUPED = re.compile(r"([+-]?)(\d{1,3}(?: \d{3})+)(\.\d+)?")
_MIXED = re.compile(r"(?<![\w./^}])(\d{1,9}) (\d{1,9}) ?/ ?(\d{1,9})(?![\w/^(.])")
_FACTORS = re.compile(r"(?<![A-Za-z\\])([A-Za-z]) (?=[A-Za-z](?![A-Za-z]))")
_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt)?|math(?:rm|bf|it|sf|tt)|boldsymbol|bm|mbox|bf|rm)"
    r"\s*\{([^{}\\]*)\}"
)
_UNIT_COMMA = re.compile(r"(?<=\d)\s*\\(?:text|mathrm)\s*\{[^{}]*\}(?=\s*,)")
_CONSTANT = re.compile(r"\\(?:mathrm|text|operatorname)\{([ei])\}(?!\w)")
_PRIMES = re.compile(r"\^\s*(?:\{\s*((?:\\prime\s*)+)\}|(\\prime)(?![A-Za-z]))")
_NAMES = {
    "lbrace": r"\{",
    "rbrace": r"\}",
    "varnothing": r"\emptyset",
    "lor": r"\text{ or }",
    "vee": r"\text{ or }",
}
_NAMED = re.compile(r"\\(lbrace|rbrace|varnothing|lor|vee)(?![A-Za-z])")
_POWER_OF_TEN = re.compile(r"(?<=\d) ?[xX] ?(?=10 ?\^)")
_LINES = re.compile(
    r"\\begin\{(aligned|align\*?|split|gathered|gather\*?|eqnarray\*?|equation\*?|cases)\}(.*?)\\end\{\1\}",
    re.DOTALL,
)
_SCIENTIFIC = re.compile(r"([+-]?)(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})")
_GREEK = re.compile(r"[A-Za-z\u0370-\u03ff]+")
_WORD = re.compile(r"[^\W\d_]+")
_LEADING = re.compile(r"^\s*\\text\{(?:第|共|共有|一共|总共|约|大约|为|是|有|等于)\}")
# A number's myriads, thousands, hundreds; but not of a unit such as kilograms.
_MYRIAD = re.compile(r"(\d+(?:\.\d+)?)\s*([万亿]|千(?![克米瓦卡伏赫字])|百(?!分))")
_TIMES = {"万": 10**4, "亿": 10**8, "千": 1000, "百": 100}
_AND = re.compile(r"(?<=[\w)}])\s*[和或与]\s*(?=[\dA-Za-z({\\-])", re.ASCII)
_CELSIUS = re.compile(r"°\s*([CF])(?![A-Za-z])")
_NUMBER = re.compile(r"([+-]?)\s*(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?:\s*/\s*(\d+))?")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)\\(?:overline|bar|dot) ?(?:\{(\d+)\}|(\d))")
_FRAC = re.compile(  # a digit alone needs no braces
    r"([+-]?)\s*(\d+)?\s*\\[dt]?frac\s*(?:\{\s*([+-]?\d+)\s*\}|(\d))"
    r"\s*(?:\{\s*([+-]?\d+)\s*\}|(\d))"
)
# What may follow a number without changing it: words, or units with their powers.
_UNIT = re.compile(
    r"(?P<number>.*[\d}]) ?(?P<unit>[A-Za-z]+\.?(?: ?/ ?[A-Za-z]+|\^\{?[23]\}?| [A-Za-z]+\.?)*)"
)
_COUNTS = re.compile(  # words that do change it, or that join it to another
    r"\b(?:(?:hundred|thousand|million|billion|trillion|dozen|score|ten)s?|half|halves|thirds?|quarters?"
    r"|\w*(?:four|fif|six|seven|eigh|nin|ten|teen|tie|hundred|thousand|million|billion)ths?"
    r"|percent(?:age)?|pct|squared|cubed|factorial|radians?|pi|tau|and|or|to|by|times|plus|minus"
    r"|over|mod|modulo|choose|divided|base|if|for|where|when|not|infinity"
    r"|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|gcd|lcm|max|min)\b",
    re.IGNORECASE,
)
_SHORT = frozenset("m s g l h in cm mm km dm ft yd mi oz lb kg mg ml hr kw hz ms kj pm am".split())


def latex(text: str) -> str:
    """Unicode mathematics as LaTeX, before the compatibility form would flatten it (x², ½, √2)."""
    if text.isascii():
        return text
    text = _SMALL.sub(lambda m: ("^" if m[1] else "_") + "{" + texts.plain(m[0]) + "}", text)
    text = _ROOT.sub(_root, _PART.sub(_fraction, text)).replace("√", "sqrt")
    return _CELSIUS.sub(r"^\\circ\\text{\1}", text).translate(_SIGNS)


def _root(match: re.Match[str]) -> str:
    inner = match[2][1:-1] if match[2][0] in "{(" else match[2]
    return rf"\sqrt{_ROOTS[match[1]]}{{{inner}}}"


def _fraction(match: re.Match[str]) -> str:
    above, below = unicodedata.normalize("NFKC", match[0]).split("\u2044")
    return rf"\frac{{{above}}}{{{below}}}"


def normalise(text: str) -> str:
    """The string without dollar signs, LaTeX spacing, wrappers, outer blanks and closing marks."""
    text = texts.plain(latex(text))
    if len(text) > LONG:
        return " ".join(text.split())
    for _ in range(12):  # what one pass takes off may show more, but not for ever
        before, text = text, _pass(text)
        if text == before:
            break
    return text


def _pass(text: str) -> str:
    text = text.replace("\\$", "").replace("$", "").replace("~", " ")
    if "\\" in text or "{" in text:
        text = _PRIMES.sub(lambda m: "'" * m[0].count("prime"), text)
        text = _CONSTANT.sub(r"\1", _NAMED.sub(lambda m: _NAMES[m[1]], text))
        text = _GROUPED.sub(lambda m: re.sub(r"\D", "", m[0]), text)
        text = _SPACING.sub(r"\1 ", _BREAK.sub(r"\\\\ ", text))
        text = _UNIT_COMMA.sub("", _LINES.sub(_joined_lines, text))
        text = _WRAPPED.sub(lambda m: m[1] if m[0] == text or _number(m[1]) else m[0], text)
        if text.startswith("{") and texts.closing(text, 1) == len(text) - 1:
            text = text[1:-1]
    if not text.isascii():
        text = _foreign(text)
    text = re.sub(r"\s+", " ", text).lstrip(" *`").rstrip(" *`.,;:")
    text = _MIXED.sub(_mixed, _POWER_OF_TEN.sub("*", text))
    if _FACTORS.search(text) and not texts.words(text):  # the library reads "a b + c" as "a"
        text = _FACTORS.sub(r"\1", text)
    if match := _BLANK_GROUPED.fullmatch(text):
        text = match[1] + match[2].replace(" ", "") + (match[3] or "")
    return text


def _joined_lines(match: re.Match[str]) -> str:
    """A derivation's last line; the lines of a system as a list; else as it was."""
    name, body = match[1], re.sub(r"\\\\\s*$", "", match[2].strip())
    lines = [line.strip() for line in re.split(r"\\\\", body)]
    if name == "cases":
        systems = all(line.count("=") == 1 and line.count("&") <= 1 for line in lines)
        apart = all("&" not in re.sub(r"&\s*=|=\s*&", "", line) for line in lines)
        return ", ".join(line.replace("&", "") for line in lines) if systems and apart else match[0]
    lines = [" ".join(line.replace("&", " ").split()) for line in lines]
    while len(lines) > 1 and lines[1].startswith("="):  # "a = 3 + 9 \\ = 12" is one line
        lines[:2] = [lines[0].partition("=")[0] + lines[1]]
    letters = [set(re.findall("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", line))) for line in lines]
    if set().union(*letters) <= letters[-1]:
        return lines[-1]
    return ", ".join(lines)


def _mixed(match: re.Match[str]) -> str:
    whole, above, below = match.groups()
    return rf"{whole}\frac{{{above}}}{{{below}}}" if int(above) < int(below) else match[0]


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*[+-]?[\d.,]+\s*", text))


def _foreign(text: str) -> str:
    """Words of other scripts beside a number are text: a unit, or "about", "in all" before it."""
    if not re.search(r"\d", text):
        return text
    text = _MYRIAD.sub(lambda m: str(Fraction(m[1]) * _TIMES[m[2]]), _AND.sub(", ", text))
    pieces = re.split(r"(\\(?:text|mathrm|mathbf)\s*\{[^{}]*\})", text)
    pieces[::2] = [
        _WORD.sub(lambda m: m[0] if _GREEK.fullmatch(m[0]) else rf"\text{{{m[0]}}}", piece)
        for piece in pieces[::2]
    ]
    return _LEADING.sub("", "".join(pieces))


def measured(text: str) -> Fraction | None:
    """The number of a normalised "12 dollars" or "12 km^2" (`exact` reads none), else None."""
    match = _UNIT.fullmatch(text) if len(text) <= MAX_DIGITS else None
    if match is None or _COUNTS.search(match["unit"]):
        return None
    pieces = re.findall("[A-Za-z]+", match["unit"])
    if any(len(piece) < 3 and piece.lower() not in _SHORT for piece in pieces):
        return None
    if len(pieces) == 1 and len(pieces[0]) == 1:  # "12 m" may be a product
        return None
    return exact(match["number"].strip())


def exact(text: str) -> Fraction | None:
    """The rational number that a normalised string writes in full, else None."""
    if len(text) > MAX_DIGITS:
        return None
    if match := _NUMBER.fullmatch(text):
        sign, whole, decimals, below = match.groups()
        if (decimals and below) or (below and int(below) == 0):
            return None
        value = Fraction(whole.replace(",", "") + (decimals or "")) / int(below or 1)
        return -value if sign == "-" else value
    if (match := _FRAC.fullmatch(text)) and int(match[5] or match[6]):
        value = Fraction(int(match[3] or match[4]), int(match[5] or match[6]))
        if match[2]:  # a mixed number; what is no proper fraction behind its whole is not read
            value = value + int(match[2]) if 0 < value < 1 else None
        return -value if match[1] == "-" and value is not None else value
    if match := _REPEATING.fullmatch(text):
        sign, whole, once, *again = match.groups()
        period = again[0] or again[1]
        nines = 10 ** len(once) * (10 ** len(period) - 1)
        value = Fraction(f"{whole or 0}.{once or 0}") + Fraction(int(period), nines)
        return -value if sign == "-" else value
    if match := _SCIENTIFIC.fullmatch(text):
        value = Fraction(match[2]) * Fraction(10) ** int(match[3])
        return -value if match[1] == "-" else value
    return None
