"""`katlab chat`: a student in a terminal, token by token; judge, thought and answer apart.

Usage:  talk(student, Console(highlight=False), "auto", max_new_tokens=128)
"""

import contextlib
import sys

from rich.console import Console

from katlab import template
from katlab.conversation import stream
from katlab.conversation.chat import Chat, Reply
from katlab.lab.settings import did_you_mean
from katlab.samples import PARTS

with contextlib.suppress(ImportError):  # line editing and history, where the system has them
    import readline  # noqa: F401

STYLES = {"judge": "yellow", "thought": "blue", "answer": "bold green", stream.STRAY: "red"}
MARGIN = 9  # columns: a part's name stands before its text
MODES = ("auto", *template.MODES)
COMMANDS = (*(f"/{mode}" for mode in MODES), "/reset", "/quit")
HELP = f"{' '.join(COMMANDS)} · Ctrl-C stops a reply, Ctrl-D ends"


def talk(student: Chat, console: Console, mode: str, **how) -> None:
    """Read lines until the end, answer each with those before it; `how` as in `stream.reply`."""
    messages: list[dict] = []
    typed = sys.stdin.isatty()
    if typed:
        console.print(HELP, style="dim")
    while line := _read(console, mode) if typed else sys.stdin.readline():
        word = line.strip()
        if word == "/quit":
            return
        if word == "/reset":
            messages = []
            console.print("The conversation begins anew.", style="dim")
        elif word.removeprefix("/") in MODES and word.startswith("/"):
            mode = word.removeprefix("/")
            console.print(f"Mode {mode}.", style="dim")
        elif word.startswith("/"):
            console.print(f"There is no command '{word}'; {did_you_mean(word, COMMANDS)}")
        elif word:
            if not typed:
                console.print(f"{'you':{MARGIN}}{word}", soft_wrap=True)
            asked = [*messages, {"role": "user", "content": word}]
            said = once(student, console, asked, mode, **how)
            if said.problem is None:
                messages = [*asked, {"role": "assistant", "content": said.answer}]
            elif messages:
                console.print("This exchange is left out of the conversation.", style="dim")


def once(student: Chat, console: Console, messages: list[dict], mode: str, **how) -> Reply:
    """Stream one reply, then say how it went and what its parts took."""
    last = ""

    def show(part: str, text: str) -> None:
        nonlocal last
        if part != last:
            console.print(f"{chr(10) if last else ''}{part:{MARGIN}}", end="", style="dim")
            last = part
        text = text.replace("\n", "\n" + " " * MARGIN)
        console.print(text, end="", style=STYLES[part], soft_wrap=True)
        console.file.flush()

    said = stream.reply(student, messages, mode, show, **how)
    console.print("\n" * bool(last) + summary(said) + "\n", style="dim", soft_wrap=True)
    return said


def summary(said: Reply) -> str:
    """Three lines: the mode and what is wrong if anything is, tokens, seconds of every part."""
    mode = {"on": "think on", "off": "think off", None: "none"}[said.mode]
    mode += " (forced)" if said.forced != "auto" else ""
    mode += f" · malformed: {said.problem}" if said.problem else ""
    written = [name for name in (*PARTS, "all") if said.tokens[name]]
    tokens = " · ".join(f"{name} {said.tokens[name]}" for name in written)
    seconds = " · ".join(f"{name} {said.seconds[name]:.2f}" for name in written)
    lines = {"decision": mode, "tokens": tokens, "seconds": seconds}
    return "\n".join(f"{name:{MARGIN}}{text}" for name, text in lines.items())


def _read(console: Console, mode: str) -> str:
    """The next line, "" at the end (Ctrl-D); an interrupt empties what is being typed."""
    while True:
        try:
            return input(f"{mode}> ") + "\n"
        except EOFError:
            console.print()
            return ""
        except KeyboardInterrupt:
            console.print("\nCtrl-D ends.", style="dim")
