"""A reply token by token: each piece of judge, thought and answer is shown as it comes.

said = stream.reply(talk, messages, "auto", lambda part, text: print(text, end=""))
said.tokens["thought"], said.seconds["thought"]
"""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import chain

from katlab import template
from katlab.conversation import chat
from katlab.conversation.chat import Chat, Reply
from katlab.generation import streaming

Show = Callable[[str, str], None]  # of a part's name and the text that joins it
STRAY = "stray"  # the part that text outside judge, thought and answer belongs to


def reply(
    talk: Chat,
    messages: list[dict],
    mode: str = "auto",
    show: Show = lambda part, text: None,
    *,
    tools: list[dict] | None = None,
    **how,
) -> Reply:
    """One reply as `Chat.reply` gives it, with the seconds of its parts; `how` as there.

    An interrupt (Ctrl-C) stops the model; the reply is then what was said until there, truncated.
    """
    prefill, tok = talk.prefill(mode), talk.tokenizer
    prompt = template.prompt(tok, messages, tools) + prefill
    begun = time.perf_counter()
    head = tok(prefill, add_special_tokens=False)["input_ids"] if prefill else []
    parts, ids, moments = Parts(talk, show), [], [begun]
    coming = streaming.tokens(talk.model, tok, prompt, **how)
    try:
        for token, moment in chain(((token, begun) for token in head), coming):
            ids.append(token)
            moments.append(moment)
            parts.put(token)
    except KeyboardInterrupt:
        pass
    finally:
        coming.close()
    said = chat.parts(tok, messages, mode, ids)
    return replace(said, seconds=_seconds(template.parse(ids, template.Tags.of(tok)), moments))


def _seconds(parsed: template.Parsed, moments: list[float]) -> dict[str, float]:
    """Seconds of each part: from the token before its first one to its last."""
    spans = {"judge": parsed.judge, "thought": parsed.thought, "answer": parsed.answer}
    spans["all"] = (0, parsed.length)
    return {
        name: 0.0 if span is None else moments[span[1]] - moments[span[0]]
        for name, span in spans.items()
    }


class Parts:
    """Text of token ids that come one by one, by the part of the reply they belong to."""

    def __init__(self, talk: Chat, show: Show):
        self.tok, self.show = talk.tokenizer, show
        self.tags = template.Tags.of(talk.tokenizer)
        self.names = {token: tag for tag, token in self.tags.ids.items()}
        self.part, self.ids, self.shown = "judge", list[int](), ""

    def put(self, token: int) -> None:
        """Show what this token adds; tags open and close the parts and are not shown."""
        tag = self.names.get(token, "")
        inside = self.part in ("thought", "answer")  # which may speak of tags other than their own
        closes = {"thought": "</think>", "answer": "</answer>"}.get(self.part, "")
        if token in self.tags.eos or (tag and (not inside or tag == closes)):
            after = {"<think>": "thought", "<answer>": "answer", "<judge>": "judge"}
            self.part, self.ids, self.shown = after.get(tag, STRAY), [], ""
            return
        self.ids.append(token)
        text = self.tok.decode(self.ids).strip()
        if len(text) > len(self.shown) and not text.endswith("\ufffd"):  # half a character
            self.show(self.part, text[len(self.shown) :])
            self.shown = text
