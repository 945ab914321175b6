"""Fenced blocks of a Markdown answer, and the one among them that is the program.

Read as CommonMark has it: fences of backticks or tildes, indented or in a list item or quote, with
an info string; a block that is left open runs to the end. Line ends of any system.
Usage: `blocks("```python\\nx = 1\\n```")` gives `[("python", "x = 1\\n")]`
"""

from __future__ import annotations

import ast
import builtins
import html
import os
import re
import textwrap

_OPEN = re.compile(
    r"(?P<lead>[ \t]*(?P<quote>(?:>[ \t]?)*)[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)?)"
    r"(?P<fence>`{3,}|~{3,})[ \t]*(?P<info>.*)"
)
_ONE_LINE = re.compile(r"[ \t]*(`{3,})(?:(?:python3?|py)[ \t]+)?([^`\n]+)\1[ \t]*")
_LANGUAGE = re.compile(r"\{?[ \t]*\.?([\w+#.-]*)")
_PYTHON = re.compile(r"(?:i?python|py|sage)[\d.]*", re.IGNORECASE)
_BEHIND = re.compile(
    r"[^`]*[^`\s][^`]*(?P<fence>`{3,})[ \t]*(?P<info>python3?|py)[ \t]*", re.IGNORECASE
)
_TAGGED = re.compile(  # as CodeLlama, MBPP's examples and HTML mark a program
    r"\[PYTHON\]\n?(.*?)(?:\[/PYTHON\]|\Z)|\[BEGIN\]\n?(.*?)(?:\[DONE\]|\Z)"
    r"|<code\b[^<>]{0,99}>(.*?)(?:</code>|\Z)",
    re.DOTALL,
)
_SENTENCES = re.compile(r"\A(?:[A-Z][^\n=()\[\]{}#@;]*[.:!]\n(?:[ \t]*\n)*)+")
_READS = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\b")
_PRINTS = re.compile(r"\bprint\s*\(|\bstdout\b")


def blocks(text: str) -> list[tuple[str, str]]:
    """(language in small letters or "", content) of each fenced block, in order."""
    found: list[tuple[str, str]] = []
    fence = lead = quote = language = ""
    lines: list[str] = []
    for line in _lines(text):
        if fence:
            inner = line
            for _ in range(quote.count(">")):
                inner = re.sub(r"^[ \t]*>[ \t]?", "", inner)
            bare = inner.strip()
            inset = len(inner) - len(inner.lstrip()) - len(lead)  # four blanks more: content
            if len(bare) >= len(fence) and not bare.strip(fence[0]) and inset < 4:
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
        elif match := _BEHIND.fullmatch(line):  # "Sure! ```python"
            fence, lead, quote, lines, language = match["fence"], "", "", [], "python"
    if fence:
        found.append((language, _dedented(lines, len(lead))))
    return found


def _lines(text: str) -> list[str]:
    """Lines, whatever ends them; invisible marks and hard blanks at a line's edges go."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = re.sub("^[\ufeff\u200b]+|\ufeff", "", text)
        hard = re.compile("^[ \t\u00a0\u3000]+|[ \t\u00a0]+$", re.MULTILINE)
        text = hard.sub(lambda m: re.sub("[\u00a0\u3000]", " ", m[0]), text)
    return text.split("\n")


def _dedented(lines: list[str], indent: int) -> str:
    """The lines without their fence's indent, and without what all of them share."""
    cut = [line[min(indent, len(line) - len(line.lstrip(" \t"))) :] for line in lines]
    heads = [line[: len(line) - len(line.lstrip(" \t"))] for line in cut if line.strip()]
    shared = len(os.path.commonprefix(heads))
    if re.match(r"\s*>>> ", "\n".join(cut)):  # a session: what was typed, not what came back
        typed = [re.match(r"\s*(?:>>>|\.\.\.)(?: |$)(.*)", line) for line in cut]
        return "".join(match[1] + "\n" for match in typed if match)
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
    What it uses and an earlier block alone defines, such as an import, goes before it.
    """
    found = blocks(text)
    if not found:
        if inline := re.fullmatch(r"\s*`([^`]+)`\s*", text):
            return inline[1]
        if tagged := [next(filter(None, m.groups()), "") for m in _TAGGED.finditer(text)]:
            found = [("", html.unescape(one) if "<code" in text else one) for one in tagged]
        else:
            bare = "\n".join(_lines(text))
            return textwrap.dedent(rest) if (rest := _SENTENCES.sub("", bare)) != bare else bare

    def rank(at: int) -> tuple[bool, int, int, int]:
        language, content = found[at]
        named = 2 if _PYTHON.fullmatch(language) else not language
        does = 2 * bool(_READS.search(content)) + bool(_PRINTS.search(content))
        return bool(entry) and defines(content, entry), named, 0 if entry else does, at

    best = max(range(len(found)), key=rank)
    return _with_earlier([content for _, content in found[:best]], found[best][1])


def _with_earlier(earlier: list[str], content: str) -> str:
    """The program behind the statements of earlier blocks that bind what it lacks."""
    if not earlier:
        return content
    try:
        program, taken = ast.parse(content), []
        lacking, own = _lacking(program), bound(program)
        for block in reversed(earlier if lacking else []):
            for node in reversed(_parsed(block)):
                if isinstance(node, _BINDING) and (names := bound(node)) & lacking:
                    taken.append(ast.unparse(node) + "\n")
                    lacking = (lacking - names) | (_lacking(node) - own)
    except UNPARSED:
        return content
    return "".join(reversed(taken)) + content


UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
_BINDING = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom),
    *(ast.Assign, ast.AnnAssign),
)


def _parsed(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except UNPARSED:  # a block in another language
        return []


def bound(tree: ast.AST) -> set[str]:
    """The names that a tree binds anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def _lacking(tree: ast.AST) -> set[str]:
    """The names that a tree uses and binds nowhere; none where it imports a star."""
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names = bound(tree)
    return set() if "*" in names else used - names - set(dir(builtins))
