"""Fenced blocks of a Markdown answer, and the one among them that is the program.

Read as CommonMark has it: fences of backticks or tildes, indented or in a list item or quote, with
an info string; a block that is left open runs to the end. Line ends of any system.
Usage: `blocks("```python\\nx = 1\\n```")` gives `[("python", "x = 1\\n")]`
"""

from __future__ import annotations

import os
import re

_OPEN = re.compile(
    r"(?P<lead>[ \t]*(?P<quote>(?:>[ \t]?)*)[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>.*)"
)
_ONE_LINE = re.compile(r"[ \t]*(`{3,})(?:(?:python3?|py)[ \t]+)?([^`\n]+)\1[ \t]*")
_LANGUAGE = re.compile(r"\{?[ \t]*\.?([\w+#.-]*)")
_PYTHON = re.compile(r"(?:i?python|py|sage)[\d.]*", re.IGNORECASE)
_SENTENCES = re.compile(r"\A(?:(?=\S+ )[A-Z][^\n=()\[\]{}#@;]*[.:!]\n(?:[ \t]*\n)*)+")
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\b")
_PRINTS = re.compile(r"\bprint\s*\(|\bstdout\b")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language in small letters or "", content) of each fenced block, in order."""
    found: list[tuple[str, str]] = []
    fence = lead = quote = language = ""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if fence:
            inner = line
            for _ in range(quote.count(">")):
                inner = re.sub(r"^[ \t]*>[ \t]?", "", inner)
            bare = inner.strip()
            if len(bare) >= len(fence) and not bare.strip(fence[0]):
                found.append((language, _dedented(lines, len(lead))))
                fence = ""
            else:
                lines.append(inner)
        elif "```" not in (line_start := line[:200]) and "~~~" not in line_start:
            continue
        elif match := _ONE_LINE.fullmatch(line):
            found.append(("", match[2].strip() + "\n"))
        elif (match := _OPEN.fullmatch(line)) and not (
            "`" in match["info"] and "`" in match["fence"]
        ):
            fence, lead, quote, lines = match["fence"], match["lead"], match["quote"], []
            language = _LANGUAGE.match(match["info"])[1].lower()
    if fence:
        found.append((language, _dedented(lines, len(lead))))
    return found


def _dedented(lines: list[str], indent: int) -> str:
    """The lines without their fence's indent, and without what all of them share."""
    cut = [line[min(indent, len(line) - len(line.lstrip(" \t"))) :] for line in lines]
    heads = [line[: len(line) - len(line.lstrip(" \t"))] for line in cut if line.strip()]
    shared = len(os.path.commonprefix(heads))
    return "".join((line[shared:] if line.strip() else line) + "\n" for line in cut)


def defines(source: str, entry: str) -> bool:
    """Whether a source has a line that defines the entry, a name or Class.method, by its look."""
    head, *method = map(re.escape, entry.split("."))
    names = "|".join((head, *method))
    defined = rf"^[ \t]*(?:(?:async[ \t]+)?def|class)[ \t]+(?:{names})\b"
    return bool(re.search(rf"{defined}|^{head}[ \t]*(?::[^=\n]*)?=(?!=)", source, re.MULTILINE))


def program(text: str, entry: str = "") -> str:
    """The program in an answer; when nothing is fenced, the answer without sentences before it.

    The last block that defines the entry, else for a program without one the last that reads its
    input or else prints; blocks named Python go before unnamed ones, and those before others.
    """
    found = blocks(text)
    if not found:
        inline = re.fullmatch(r"\s*`([^`]+)`\s*", text)
        return inline[1] if inline else _SENTENCES.sub("", text.replace("\r\n", "\n"))

    def rank(at: int) -> tuple[bool, int, int, int]:
        language, content = found[at]
        named = 2 if _PYTHON.fullmatch(language) else not language
        does = 2 * bool(_READS.search(content)) + bool(_PRINTS.search(content))
        return bool(entry) and defines(content, entry), named, 0 if entry else does, at

    return found[max(range(len(found)), key=rank)][1]
