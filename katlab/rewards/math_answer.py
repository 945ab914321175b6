r"""Which part of a math answer is the final one: a box, a statement, display mathematics, or all.

Usage: `final_answer("The answer is\n\\[\n12\n\\]")` gives "12"
"""

from __future__ import annotations

import re

from katlab.rewards import text as texts
from katlab.rewards.math_text import LONG, exact, latex, normalise

_TO_VALUE = (  # what may stand between "the answer is" and its value
    r"[\s:=*_`}]*(?:(?:therefore|thus|then|hence|simply|clearly|obviously|indeed|exactly|precisely"
    r"|approximately|about|roughly|just|equal\s+to|given\s+by)\b,?[\s*_`]*)?"
)
_STATED = re.compile(
    r"(?:\banswers?\b[*_`\s]*"
    r"(?:,\s*(?:therefore|thus|then|hence)\s*,\s*|(?:to|of|for|here)\b[^.\n:=]{0,60}?\s)?"
    r"(?:(?:is|are|(?:would|must|should)\s+be|comes\s+to|equals)\b|[:=]|->)"
    r"|^[#*_ \t]*(?:the\s+)?(?:final\s+)?answer[*_: \t]*$|(?-i:^A:)(?=\s)"
    rf"|{texts.ANSWER}\s*{texts.IS}|####){_TO_VALUE}",
    re.IGNORECASE | re.MULTILINE,
)
_WEAKLY = re.compile(  # where nothing states an answer
    rf"(?:\b(?:result|solution)\s+is\b|结果\s*(?:[是为]|[:=])){_TO_VALUE}", re.IGNORECASE
)
_SUBORDINATE = re.compile(  # "12, as the answer is even" states nothing
    r"\b(?:as|because|since|if|whether|although|though|when)\s+(?:(?:the|its|my|final|correct)\s+)*$",
    re.IGNORECASE,
)
_DISPLAY = re.compile(
    r"\\\[(.*?)\\\]|\$\$(.*?)\$\$|(?P<whole>\\begin\{(equation|align|gather)\*?\}.*?\\end\{\4\*?\})",
    re.DOTALL,
)
_SENTENCE = re.compile(
    r"\n|\.(?=\s)|(?:\s+|\s*[,(]\s*)(?:because|since|as|which|so|but|where|when)\b"
    r"|\s+\((?=\s*[A-Za-z]{2,}\s+[A-Za-z]{2,})|\s+-+\s+(?=[A-Za-z]{2,}\s+[A-Za-z]{2,})"
    r"|;\s+(?=[A-Za-z]{3,})|,?\s+and\s+(?:that|this|it|we|the)\b"
    r"|,?\s*(?:因为|由于|因此|所以|故)",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\\boxed\s*\{\s*\}")
_HTML = re.compile(r"<(b|i|u|em|strong|p|span|code)\b[^<>]{0,99}>([^<]*)</\1>")
_IS_ANSWER = re.compile(
    r"(?<!\S)(\S+)\s+(?:is|as)\s+(?:the|my|our)\s+(?:final\s+|correct\s+)?answer\b"
)
_LABEL = re.compile(
    r"^(?:\\text(?:bf|it|rm)?\s*\{\s*)?(?:the\s+)?(?:final\s+)?answer\s*(?:is)?\s*[:=]?\s*\}?\s*(?=\S)",
    re.I,
)


def final_answer(text: str) -> str | list[str]:
    r"""What the answer submits: a string, or the list of several differing `\boxed{}` contents."""
    text = texts.plain(latex(text))
    if "</" in text:
        text = _HTML.sub(r"\2", text)
    contents = [normalise(_LABEL.sub("", content)) for content in texts.boxes(text)]
    if contents == [""] and (bare := _PLACE.sub("", text)) != text and _STATED.search(bare):
        contents, text = [], bare
    if contents:
        distinct = list({exact(c) if exact(c) is not None else c: c for c in contents}.values())
        return distinct[0] if len(distinct) == 1 else distinct
    stated = list(_STATED.finditer(text)) or list(_WEAKLY.finditer(text))
    if stated:
        before = [text[max(m.start() - 60, 0) : m.start()] for m in stated]
        main = [m for m, b in zip(stated, before, strict=True) if not _SUBORDINATE.search(b)]
        rest = text[(main or stated)[-1].end() :]
        below = _DISPLAY.match(rest[:LONG])
        return normalise(_shown(below) if below else _SENTENCE.split(rest, 1)[0])
    if len(text) > LONG:
        return normalise(text)
    shown = [m for m in _DISPLAY.finditer(text) if not text[m.end() :].strip(" .\n")]
    if shown:
        return normalise(_shown(shown[-1]))
    named = _IS_ANSWER.search(text)
    return normalise(named[1] if named else text)


def _shown(display: re.Match[str]) -> str:
    return display[1] or display[2] or display["whole"] or ""
