r"""What an answer's text means before any verifier of a kind looks at it.

Unicode and typography in one form on both sides, words and how they part, the contents of
`\boxed{}`, and what takes an earlier answer back. Shared by math, choice and keywords.
Usage: `boxes(plain("so \\boxed{１２}。"))` gives `["12"]`
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u201b\u02bc", "'"),
        **dict.fromkeys("\u201c\u201d\u201e\u300c\u300d", '"'),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
        **dict.fromkeys("\u00ad\u200b\u2060\ufeff"),  # invisible: a soft hyphen, zero-width blanks
        "。": ". ",
        "、": ", ",
        "\u2032": "'",  # a prime
        "【": "[",
        "】": "]",
    }
)
# Scripts that put no blank between words, and Hangul, whose particles join the word.
UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u9fff"
    "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
)
_NEGATION = (  # English, then Chinese
    r"(?P<negated>(?:\b(?:not|no|never)|n't)\s+(?:in\s+|the\s+|a\s+)?"
    r"|(?:不是|不在|不|没有|没|并非|非)\s*)?"
)
# What announces an answer in languages other than English, and what may join it to one.
ANSWER = (
    r"(?:\[?答案?\]?|答え|回答|解答|정답|답|(?i:ответ|antwort|réponse|respuesta|resposta|risposta|đáp\s+án)"
    r"|الجواب|الإجابة|उत्तर)"
)
IS = r"(?:应该是|应为|应选|是|为|は|은|는|(?i:(?:ist|est|es|é|è|là)\b)|[:=]|(?<=\]))"
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?:\s*\{|\s+(?P<bare>[^\s{}$\\]+))")
_INNER = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*)\}")
_PLACEHOLDER = re.compile(
    r"[\s._?\u2026]*|\\[lc]?dots|(?:\\text\s*\{)?\s*(?:(?:your|the|final)\s+)*answer(?:\s+here)?\s*\}?",
    re.IGNORECASE,
)
RETRACTED = re.compile(
    r"\b(?:wait|no|actually|correction|instead|sorry|scratch|rather|mistake|wrong)\b", re.I
)
# What a run of letters may be in algebra: a product of variables, or the corners of a figure.
_VARIABLES = re.compile(r"(?!.*(.).*\1)(?:[abcdxyz]{1,4}|[^aeiou]{1,4})", re.IGNORECASE)
_COMMAND_OF_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*(?=\{)")
_COMMAND = re.compile(_COMMAND_OF_TEXT.pattern + r"|\\[A-Za-z]+")
_CONSTANT = re.compile("[ei]")
_ALGEBRA = re.compile(r"[\d\\=+*/^_<>|%\[\]]")
NAMES = frozenset(
    "pi infinity infty inf alpha beta gamma delta epsilon theta lambda mu sigma phi omega sin cos "
    "tan cot sec csc log exp lim max min gcd lcm sqrt arcsin arccos arctan sinh cosh tanh".split()
)


def plain(text: str) -> str:
    """The text in compatibility form (NFKC), typographic quotes and dashes as on a keyboard."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", text).translate(_TYPOGRAPHY)


def canonical(text: str) -> str:
    """The text in composed form (NFC): the same characters, however they were typed."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


@lru_cache(maxsize=4096)
def _keyword(keyword: str) -> re.Pattern[str]:
    phrase = r"\s+".join(map(re.escape, folded(keyword).split()))
    emphasis = r"(?:(?<!\w)_{1,3})?"  # Markdown's _word_, not a name's_word
    left = rf"{emphasis}(?:(?<!\w)|(?<=[{UNSPACED}])|(?=[{UNSPACED}])|(?<=(?<!\w)_)|(?<=__))"
    right = rf"(?:(?!\w)|(?<=[{UNSPACED}])|(?=[{UNSPACED}])|(?=_{{1,3}}(?!\w)))"
    return re.compile(f"{_NEGATION}{left}{phrase}{right}")


def folded(text: str) -> str:
    """The text for a search in any case; the dot that a capital dotted I leaves on its i goes."""
    return plain(text).casefold().replace("i\u0307", "i")


def occurrences(keyword: str, text: str) -> list[bool]:
    """For each place where the keyword stands in the text as whole words: whether not negated.

    `text` is `folded`. A combining mark behind it makes it another word.
    """
    return [
        not match["negated"]
        for match in _keyword(keyword).finditer(text)
        if unicodedata.category(text[match.end() : match.end() + 1] or " ")[0] != "M"
    ]


def boxes(text: str) -> list[str]:
    r"""The contents of the boxes that count, 21 at most; a box in a box is its content.

    An unclosed box has the content "". Empty boxes and placeholders ("\boxed{answer}") count only
    where there is no other; boxes before a retraction ("wait, ...") do not, where one follows it.
    """
    found: list[tuple[int, int, str]] = []  # start, end, content
    at = 0
    while len(found) <= 20 and (match := _BOX.search(text, at)):
        at, end = match.end(), match.end()
        if content := match["bare"]:
            content = content.rstrip(".,;:")
        elif (end := closing(text, at)) >= 0:
            content = _BOX.sub("{", _INNER.sub(r"\1", text[at:end]))
            at = end + 1
        found.append((match.start(), at, content if end >= 0 else ""))
    found = [one for one in found if not _PLACEHOLDER.fullmatch(one[2])] or found[-1:]
    for i in range(len(found) - 1, 0, -1):
        if RETRACTED.search(text, found[i - 1][1], found[i][0]):
            found = found[i:]
            break
    return [content for _, _, content in found]


def closing(text: str, at: int) -> int:
    """Where the group that opens before `at` closes; -1 when it does not."""
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return match.start()
    return -1


def words(text: str) -> list[str]:
    """The runs of letters in a text that no product of variables looks like, casefolded.

    In a text with digits or signs, e and i are constants and two letters are a product.
    """
    bare = _COMMAND.sub(" ", text)
    algebra = bool(_ALGEBRA.search(bare))
    found = []
    for run in re.findall(r"[^\W\d_]+", bare):
        letters = _CONSTANT.sub("", run.lower(), count=1) if algebra else run
        if algebra and letters != run.lower() and not re.fullmatch("[abcdxyz]*|.{1,2}", letters):
            letters = run  # e or i in it, and more than a product has: "step", "lines"
        few = len(run) < 3 if algebra else len(run) < 2
        corners = not run.isupper() or len(run) < 3 or _near(run)
        if run.isascii() and (few or (_VARIABLES.fullmatch(letters or "x") and corners)):
            continue
        if run.isascii() or not re.fullmatch("[\u0370-\u03ff]", run):  # one Greek letter is a name
            found.append(run.casefold())
    return found


def _near(run: str) -> bool:
    """Whether capitals are neighbours in the alphabet, as the corners of a figure are."""
    return ord(max(run)) - ord(min(run)) <= len(run)


def items(text: str) -> list[str] | None:
    r"""The items of an answer that is words alone, in any order unless in brackets; else None.

    "\text{North and East}" gives ["east", "north"]; names of mathematics are no words ("pi").
    """
    bare = re.sub(r"[{}]", "", _COMMAND_OF_TEXT.sub("", text))
    found = words(bare)
    if _ALGEBRA.search(bare) or all(word in NAMES for word in found):
        return None
    parts = re.split(r"[,;&]|\b(?:and|or)\b", bare.casefold())
    parts = [" ".join(part.split()).strip(" .'\"()!?") for part in parts]
    return [part for part in parts if part] if "(" in bare else sorted(filter(None, parts))
