"""A conversation as static HTML or Markdown: judge, thought and answer in boxes of their own.

The look of the report's Figures 10-13, with the tokens of each part. No script, no style sheet, so
that it survives nbconvert and opens offline.

    display(HTML(transcript.html([said.messages[-1], said], "A simple query")))
"""

import html as escaping
import re

from katlab.conversation.chat import Reply
from katlab.plots import JUDGE, OFF, ON, TOOL

EDGES = {"User": "#64748b", "Judge": JUDGE, "Thought": ON, "Answer": OFF, "Tool": TOOL}  # of a box


def boxes(turns: list[dict | Reply]) -> list[tuple[str, str, str]]:
    """(kind, note, text) of each box of a transcript: user, judge, thought, answer, tool."""
    shown = []
    for turn in turns:
        if not isinstance(turn, Reply):
            kind = {"user": "User", "tool": "Tool", "assistant": "Answer"}[turn["role"]]
            shown.append((kind, "", turn["content"]))
            continue
        decision = {"on": "think on", "off": "think off", None: "no decision"}[turn.mode]
        how = "forced by program, " if turn.forced != "auto" else ""
        shown.append(("Judge", f"{how}{decision}, {turn.tokens['judge']} tokens", turn.judge))
        if turn.thought is not None:
            shown.append(("Thought", f"{turn.tokens['thought']} tokens", turn.thought))
        note = f"{turn.tokens['answer']} tokens, {turn.tokens['all']} in all"
        if turn.problem is not None:
            note += f", malformed: {turn.problem}"
        shown.append(("Answer", note, turn.answer or "(none)"))
    return shown


def html(turns: list[dict | Reply], title: str = "") -> str:
    """A transcript as static HTML with inline styles; all text is escaped."""
    head = (
        f'<p style="font-weight:600;margin:0 0 6px">{escaping.escape(title)}</p>' if title else ""
    )
    body = ""
    for kind, note, text in boxes(turns):
        edge = EDGES[kind]
        body += (
            f'<div style="border-left:4px solid {edge};background:{edge}18;padding:6px 12px;'
            f'margin:4px 0"><div style="font-size:12px"><b>{kind}</b> '
            f"<span>{escaping.escape(note)}</span></div>"
            f'<pre style="margin:2px 0;white-space:pre-wrap;background:none;color:inherit;'
            f'font-size:13px">{escaping.escape(text)}</pre></div>'
        )
    return f'<div class="kat-chat" style="max-width:640px;margin:8px 0 16px">{head}{body}</div>'


def markdown(turns: list[dict | Reply], title: str = "") -> str:
    """A transcript as Markdown; a fence is longer than any run of backticks in its text."""
    lines = [f"### {title}", ""] if title else []
    for kind, note, text in boxes(turns):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
        lines += [f"**{kind}**" + (f" ({note})" if note else ""), "", fence, text, fence, ""]
    return "\n".join(lines)
