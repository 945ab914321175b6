"""Who answers chat requests, and what is asked of them: direct answers, thoughts, a critic.

Report section 3.2. Teachers, taggers and writers of rationales are all asked through
`Responder.respond`: a local model here, an endpoint or a test's stand-in elsewhere.

Deviations: (1) the thinker does not read the solver's draft, it is kept beside the thought and
tells how often thinking changed the answer; (2) the critic is a program: the verifier of the final
answer, and a check of every equation in the thought that can be read.

    teacher = teachers.load(stage, "off")
    [[answer]] = teacher.respond([row])
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from katlab import models
from katlab.generation import engines
from katlab.lab import StageRun
from katlab.rewards import grade
from katlab.tasks.equations import false_equations

THOUGHT = ("<think>", "</think>")
PARTS = ("thinking", "reasoning")  # types of a part that is one
APART = ("reasoning_content", "thinking", "reasoning")  # names of a thought beside the content


class Responder(Protocol):
    """Anything that answers chat requests: a local model, an endpoint, a test's stand-in."""

    name: str

    def respond(
        self, requests: list[dict], n: int = 1, temperature: float = 0.0, seed: int = 0
    ) -> list[list[str]]:
        """`n` replies for each request, a row with `messages` and `tools`."""


class LocalResponder:
    """The profile's teacher of a mode; its own chat template frames requests.

    The weights are loaded at the first request, as a student's are. Replies are kept in the stage's
    folder as they come.
    """

    def __init__(self, stage: StageRun, mode: str):
        self.stage, self.mode = stage, mode
        self.name = vars(stage.config.model)[f"teacher_{mode}"].rpartition("/")[2]

    @cached_property
    def loaded(self):
        """(model, tokenizer)."""
        return models.load_teacher(self.stage.config.model, self.mode)

    def respond(self, requests, n=1, temperature=0.0, seed=0) -> list[list[str]]:
        if not requests:  # where all queries go to the other mode
            return []
        model, tokenizer = self.loaded
        prompts = [
            tokenizer.apply_chat_template(
                row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
            )
            for row in requests
            for _ in range(n)
        ]
        bar = self.stage.bar(len(prompts), f"{self.name} replies")
        replies = engines.sample(
            self.stage.config.model,
            model,
            tokenizer,
            prompts,
            max_new_tokens=self.stage.settings.max_new_tokens,
            temperature=temperature,
            seed=seed,
            journal=self.stage.journal("replies.jsonl"),
            on_batch=lambda done, _: bar.to(done),
        )
        bar.close()
        # Special tokens go, but not the tags of the thought, which some tokenizers count as such.
        added = tokenizer.added_tokens_decoder.items()
        special = {i for i, token in added if token.special and token.content not in THOUGHT}
        texts = tokenizer.batch_decode([[i for i in ids if i not in special] for ids in replies])
        # R1's template opens the thought in the prompt; the reply then only closes it.
        opened = [prompt.rstrip().endswith("<think>") for prompt in prompts]
        texts = [
            f"<think>\n{text.strip()}" if began else text.strip()
            for text, began in zip(texts, opened, strict=True)
        ]
        return [texts[i : i + n] for i in range(0, len(texts), n)]


def load(stage: StageRun, mode: str) -> Responder:
    """The teacher of a mode, "on" or "off", as the profile names it."""
    return LocalResponder(stage, mode)


def pair(stage: StageRun) -> tuple[Responder, Responder]:
    """The teachers (off, on); one and the same, loaded once, where the profile names one model."""
    off, model = load(stage, "off"), stage.config.model
    return off, off if model.teacher_off == model.teacher_on else load(stage, "on")


def ask(row: dict, request: str) -> dict:
    """The query with a request about it (its tags, a rationale) appended to the last turn."""
    *history, last = row["messages"]
    asked = {"role": "user", "content": f"{last['content']}\n{request}"}
    return {"messages": [*history, asked], "tools": row["tools"]}


def asked(rows: list[dict], request: str) -> list[dict]:
    """Each query with the profile's request to answer it in a mode; as it is where that is ""."""
    return [row | ask(row, request) for row in rows] if request else rows


def split_thought(reply: str | dict, patterns: Sequence[str] = ()) -> tuple[str | None, str]:
    """A model's reply as (thought, answer); thought None where there is none.

    The thought stands apart in a message (`reasoning_content`, `thinking`, `reasoning`), or before
    the first `</think>` that is not merely spoken of, whether reply or prompt opened it. A thought
    that never ends leaves no answer. `patterns` are the profile's reply_patterns, by which a reply
    without tags is read: the first that finds both.
    """
    if isinstance(reply, dict):
        thought, content = _apart(reply)
        if thought:
            return thought, split_thought(content)[1] if content.startswith(THOUGHT[0]) else content
        reply = content
    text = body = reply.strip()
    opened, closed = THOUGHT
    while body.startswith(opened):  # the prompt and the reply may both open it
        body = body.removeprefix(opened).lstrip()
    parts = [(body[: tag.start()], body[tag.end() :]) for tag in re.finditer(closed, body)]
    ends = [(before, after) for before, after in parts if not _spoken_of(before, after)]
    if body != text:
        after_tag = text.removeprefix(opened)
        ends = ends or [p for p in parts if p[0].endswith("\n") and p[1].startswith("\n")]
        # "<think> 3+4 </think> 7", all in a line, or with a quotation mark before the tag
        ends = ends or [p for p in parts if re.match(r"\n\n| +[\d\\$*A-Z-]", p[1])][-1:]
        if not ends:
            return (None, text) if _spoken_of("", after_tag) else (body or None, "")
    elif not ends or opened in ends[0][0] or not ends[0][1].strip():
        found = filter(None, (re.search(pattern, text) for pattern in patterns))
        pairs = ((one["thought"].strip(), one["answer"].strip()) for one in found)
        return next(filter(all, pairs), (None, text))
    thought, answer = ends[0]
    return thought.strip() or None, answer.strip()


def _apart(message: dict) -> tuple[str, str]:
    """(the thought that a message gives beside its content or as a part of it or "", content)."""
    content = message.get("content")
    parts = [p for p in content if isinstance(p, dict)] if isinstance(content, list) else []
    thinks = [part for part in parts if part.get("type") in PARTS]
    said = [message.get(key) for key in APART]
    said += [next(filter(None, map(part.get, (*PARTS, "text"))), "") for part in thinks]
    rest = [part for part in content or [] if part not in thinks] if thinks else content
    return next(filter(None, map(_text, said)), ""), _text(rest)


def _text(content: str | list[dict] | dict | None) -> str:
    """A message's content, text or a list of parts, as text."""
    content = content.get("content") if isinstance(content, dict) else content
    parts = [content or ""] if isinstance(content, str | None) else content
    return "".join(
        part if isinstance(part, str) else part.get("text", "") for part in parts
    ).strip()


def _spoken_of(before: str, after: str) -> bool:
    """Whether a tag between two texts is in code or quotes, or a word of a sentence."""
    fenced, line = before.count("```") % 2, before.rpartition("\n")[2]
    word = before[-1:] in ("", " ") and after[:1] in (*" .,;:!?)",)
    return bool(fenced or line.count("`") % 2 or line.endswith(('"', "'", "“", "‘", "«")) or word)


def direct(
    rows: list[dict], responder: Responder, samples: int, seed: int, request: str = ""
) -> list[dict]:
    """Generate `samples` answers per query, reject wrong ones, keep the one most often given.

    `request` is the profile's request for a direct answer ("": the query alone).
    """
    replies = responder.respond(asked(rows, request), n=samples, temperature=0.7, seed=seed)
    # A thought before a direct answer, or an empty one, as models that can think write it, is left.
    replies = [[split_thought(reply)[1] for reply in several] for several in replies]
    verdicts = _verify(rows, replies)
    kept = []
    for row, texts, right in zip(rows, replies, verdicts, strict=True):
        good = Counter(text for text, ok in zip(texts, right, strict=True) if ok)
        if good:
            answer = good.most_common(1)[0][0]
            rate = sum(right) / samples
            kept.append(row | _record("off", None, answer, responder.name) | {"pass_rate": rate})
    return kept


def with_thought(
    rows: list[dict],
    solver: Responder,
    thinker: Responder,
    rounds: int,
    seed: int,
    solve: str = "",
    think: str = "",
    patterns: Sequence[str] = (),
) -> list[dict]:
    """Solver drafts, thinker reasons, critic accepts or sends back, up to `rounds` times.

    `solve` and `think` are the profile's requests to either ("": the query alone), `patterns` its
    reply_patterns. Kept rows carry the draft, the number of rounds and whether thinking corrected
    the draft, and the `reply` as it was said where a pattern found the thought in it.
    """
    drafts = [split_thought(reply)[1] for (reply,) in solver.respond(asked(rows, solve))]
    right = [ok for (ok,) in _verify(rows, [[draft] for draft in drafts])]
    kept: dict[int, dict] = {}
    waiting = list(range(len(rows)))
    for attempt in range(rounds):
        again = [rows[i] for i in waiting]
        heat = 0.0 if attempt == 0 else 0.8  # a critic's refusal calls for another thought
        requests = asked(again, think)
        replies = [r for (r,) in thinker.respond(requests, 1, heat, seed + attempt)]
        reasons = criticize(again, replies, patterns)
        for i, reply, reason in zip(waiting, replies, reasons, strict=True):
            if reason is None:
                thought, answer = split_thought(reply, patterns)
                kept[i] = rows[i] | _record("on", thought, answer, thinker.name)
                kept[i] |= {
                    "draft": drafts[i],
                    "rounds": attempt + 1,
                    "corrected": answer != drafts[i] and not right[i],
                }
                if split_thought(reply)[0] is None:
                    kept[i]["reply"] = reply
        waiting = [i for i in waiting if i not in kept]
        if not waiting:
            break
    return [kept[i] for i in sorted(kept)]


def criticize(
    rows: list[dict], replies: Sequence[str | dict], patterns: Sequence[str] = ()
) -> list[str | None]:
    """The critic: None accepts a reply, a sentence says why it is refused."""
    parts = [split_thought(reply, patterns) for reply in replies]
    verdicts = _verify(rows, [[answer] for _, answer in parts])
    reasons: list[str | None] = []
    for (thought, _), (ok,) in zip(parts, verdicts, strict=True):
        wrong = false_equations(thought or "")
        if thought is None:
            reasons.append("there is no thought")
        elif wrong:
            reasons.append(f"{wrong[0]} does not hold")
        else:
            reasons.append(None if ok else "the answer is not verified")
    return reasons


def _record(mode: str, thought: str | None, answer: str, teacher: str) -> dict:
    return {"mode": mode, "thought": thought, "answer": answer, "teacher": teacher}


def _verify(rows: list[dict], replies: list[list[str]]) -> list[list[bool]]:
    """Verdicts of several replies per row; unscorable counts as not verified."""
    cases = [
        (row["verifier"], text, row["reference"])
        for row, texts in zip(rows, replies, strict=True)
        for text in texts
    ]
    verdicts = iter([verdict.correct is True for verdict in grade(cases)])
    return [[next(verdicts) for _ in texts] for texts in replies]
