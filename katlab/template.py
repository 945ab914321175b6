"""The KAT output format: tags, chat template, rendering, and a parser that works on token ids.

Report section 4.1.1, Tables 2 and 3; the byte-level layout follows the released model's chat
template. The generation prompt ends with a prefilled `<judge>` line, so a sampled completion
starts *inside* the judge; history keeps only the answer of earlier assistant turns. A tag gives
structure only in its place in the layout: one that judge, thought, answer or any other message
speaks of is content.

Deviations: (1) the tool preamble is shorter than Hermes'; (2) the template takes `mode`: "on" or
"off" ends the prompt with the Stage-1 trigger token of section 3 instead of the judge.

    text = template.prompt(tokenizer, messages)            # ...<|im_start|>assistant\n<judge>\n
    parsed = template.parse(completion_ids, template.Tags.of(tokenizer))
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
from transformers import PreTrainedTokenizerBase

from katlab import UserError

TAGS = (
    *("<judge>", "</judge>", "<think_on>", "<think_off>"),
    *("<think>", "</think>", "<answer>", "</answer>"),
)
MODES = ("on", "off")
END = "<|im_end|>"  # what ends a turn in kat.jinja
ENDS = (END, "<|endoftext|>")  # a base model may still say the second; KAT stops on both
PROBLEMS = (
    "missing decision",
    "two decisions",
    "off with thought",
    "on without thought",
    "unclosed",
    "truncated",
    "out of order",
    "stray text",
)
LETTERS = dict(zip(TAGS, "JjNFTtAa", strict=True))
LAYOUT = re.compile(  # of tags as letters and of text as dots
    "(?P<judge>J?).*?(?P<decision>j(?P<mode>[NF]))"
    "(?:(?<=N)(?P<thought>T.*?t)(?=A))?(?P<answer>A.*a$)?"
)
JINJA = Path(__file__).with_name("kat.jinja")


def add_tags(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Add the eight tags as single *non-special* tokens; set the chat template and its end token.

    Non-special, because decoding with `skip_special_tokens=True` (TRL does so before rewards see a
    completion) would drop special ones. The template's end of turn becomes the end token: a base
    model's own is another one. Returns the tokens that were new.
    """
    vocab = tokenizer.get_vocab()
    new = [tag for tag in TAGS if tag not in vocab]
    tokenizer.add_tokens(new, special_tokens=False)
    tokenizer.add_special_tokens({"eos_token": END})  # keeps its id where the vocabulary has it
    tokenizer.chat_template = JINJA.read_text()
    return new + [token for token in (END,) if token not in vocab]


def end_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of `ENDS` that the tokenizer knows."""
    vocab = tokenizer.get_vocab()
    return [vocab[token] for token in ENDS if token in vocab]


def prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    tools: list[dict] | None = None,
    mode: str | None = None,
) -> str:
    """Render the generation prompt; `mode` "on" or "off" ends it with the Stage-1 trigger.

    Messages take the forms of transformers' chat templates: content as text or a list of text
    parts, null beside `tool_calls`, any JSON value as a tool's result; thoughts given apart
    (`reasoning_content`, `thinking`) are left out, as those of earlier turns are. UserError for an
    unknown role or form.
    """
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise UserError("A chat is a list of at least one message, each with role and content.")
    try:
        return tokenizer.apply_chat_template(
            messages, tools=tools, mode=mode, tokenize=False, add_generation_prompt=True
        )
    except jinja2.TemplateError as error:
        raise UserError(str(error)) from error


def judged(mode: str, analysis: str) -> str:
    """The judge's part of a completion: analysis and decision. As a prefill it forces `mode`."""
    return f"{analysis}\n</judge>\n\n<think_{mode}>\n"


def body(mode: str, answer: str, thought: str | None = None) -> str:
    """What follows the decision: thought (mode "on" only) and answer, up to the end tag."""
    if (mode == "on") != (thought is not None):
        raise ValueError("mode 'on' takes a thought and mode 'off' takes none")
    thinking = f"<think>\n{thought}\n</think>\n\n" if mode == "on" else ""
    return f"{thinking}<answer>\n{answer}\n</answer>"


@dataclass(frozen=True)
class Tags:
    """Token ids of the tags, the end-of-turn ids, and the ids that are only white space."""

    ids: dict[str, int]
    eos: frozenset[int]
    blank: frozenset[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> "Tags":
        """Read the ids off a tokenizer; UserError if the tags were never added."""
        return _tags(tokenizer, len(tokenizer))


@lru_cache(maxsize=4)  # a large vocabulary takes a second to decode
def _tags(tokenizer: PreTrainedTokenizerBase, size: int) -> Tags:
    vocab = tokenizer.get_vocab()
    missing = [tag for tag in TAGS if tag not in vocab]
    if missing:
        raise UserError(
            f"the tokenizer lacks {', '.join(missing)}; call katlab.template.add_tags first"
        )
    decoded = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    blank = {i for i, text in enumerate(decoded) if text and not text.strip()}
    eos = frozenset(end_ids(tokenizer))
    return Tags({tag: vocab[tag] for tag in TAGS}, eos, frozenset(blank))


@dataclass(frozen=True)
class Parsed:
    """Half-open token spans of a completion; None where a part is absent.

    `judge` runs through the decision token (it is what the judge's advantage is for), `problem` is
    None for a well-formed completion, else one of `PROBLEMS`.
    """

    mode: str | None
    problem: str | None
    judge: tuple[int, int]
    decision: int | None
    thought: tuple[int, int] | None
    answer: tuple[int, int] | None
    length: int


def parse(ids: list[int], tags: Tags) -> Parsed:
    """Find judge, decision, thought and answer spans in completion token ids; never raises.

    Accepts completions that start inside the judge (the prompt prefilled `<judge>`) and ones that
    carry it. Spans of thought and answer exclude their tags; tags out of place in a part that has
    its own are content. Cost is linear in len(ids).
    """
    end = next((i for i, token in enumerate(ids) if token in tags.eos), None)
    ids = list(ids) if end is None else list(ids[:end])
    found = _in_place(ids, tags)
    at = {tag: [i for i, name in found if name == tag] for tag in TAGS}
    decisions = sorted(at["<think_on>"] + at["<think_off>"])
    decision = decisions[0] if decisions else None
    mode = None if decision is None else ("on" if decision in at["<think_on>"] else "off")
    judge = (0, len(ids) if decision is None else decision + 1)
    thought, answer = _span(at, "think", len(ids)), _span(at, "answer", len(ids))
    problem = _problem(ids, tags, at, decisions, mode, ended=end is not None)
    length = len(ids) if end is None else end + 1
    return Parsed(mode, problem, judge, decision, thought, answer, length)


def _in_place(ids: list[int], tags: Tags) -> list[tuple[int, str]]:
    """(position, tag) of the tags that structure a completion, without those its parts speak of.

    A part ends at the closing tag that the layout's next tag, or the end, follows. Where a part has
    no place, or is closed and opened again, its tags all count, for `_problem` to name.
    """
    names = {token: tag for tag, token in tags.ids.items()}
    seen = [(i, names.get(token, "")) for i, token in enumerate(ids) if token not in tags.blank]
    kept = set(range(len(seen)))
    if found := LAYOUT.match("".join(LETTERS.get(name, ".") for _, name in seen)):
        head = found.string[: found.start("decision")]
        if not re.match("T.*t|A.*a", head):  # else a thought or an answer precedes the judge
            kept -= set(range(found.end("judge"), len(head)))
        for part, (opens, closes) in {"thought": ("T", "t"), "answer": ("A", "a")}.items():
            inner = (found[part] or "")[1:-1]
            # A think-off answer that is more than a thought, but begins with one, is out of order.
            thinks = part == "answer" and found["mode"] == "F" and re.match("T.*t.", inner)
            if inner and not thinks and _one_block(inner, opens, closes):
                kept -= set(range(found.start(part) + 1, found.end(part) - 1))
    return [seen[k] for k in sorted(kept) if seen[k][1]]


def _one_block(inner: str, opens: str, closes: str) -> bool:
    """Whether a block with these tags inside stays one: it is not closed and opened again."""
    depth = 1
    for letter in inner:
        if letter == opens and depth < 1:
            return False
        depth += (letter == opens) - (letter == closes)
    return True


def _span(at: dict[str, list[int]], name: str, length: int) -> tuple[int, int] | None:
    """From the first opening tag to its closing tag, or to the end where it never closes."""
    opened = at[f"<{name}>"]
    if not opened:
        return None
    start = opened[0] + 1
    return start, next((i for i in at[f"</{name}>"] if i >= start), length)


def _problem(ids, tags, at, decisions, mode, ended: bool) -> str | None:
    """Name the first thing that is wrong, in the order a reader would meet it."""
    closed = bool(at["</answer>"])
    if not ended and not closed:
        return "truncated"
    if not decisions:
        return "missing decision"
    if len(decisions) > 1:
        return "two decisions"
    if mode == "off" and (at["<think>"] or at["</think>"]):
        return "off with thought"
    if mode == "on" and not at["<think>"]:
        return "on without thought"
    if not closed or not at["</judge>"] or (mode == "on" and not at["</think>"]):
        return "unclosed"
    thinking = ["<think>", "</think>"] if mode == "on" else []
    layout = ["</judge>", f"<think_{mode}>", *thinking, "<answer>", "</answer>"]
    if at["<judge>"]:
        layout = ["<judge>", *layout]
    found = [(i, tag) for tag in TAGS for i in at[tag]]
    if [tag for _, tag in sorted(found)] != layout:
        return "out of order"
    inside = {"<judge>", "<think>", "<answer>"}  # text may follow these tags, white space the rest
    place = sorted(found)
    for (i, tag), (j, _) in zip(place, [*place[1:], (len(ids), "")], strict=True):
        if tag not in inside and any(token not in tags.blank for token in ids[i + 1 : j]):
            return "stray text"
    if at["<judge>"] and any(token not in tags.blank for token in ids[: at["<judge>"][0]]):
        return "stray text"
    return None
