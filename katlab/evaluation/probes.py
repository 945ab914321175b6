"""What stage 06 asks beyond the three arms: the base as it is, and how sure a gate was.

Both are ours. The base is the profile's student before any stage, so that nothing is credited to
training which it did already.

    frame = probes.base_arm(stage, rows);  frame["p_on"] = probes.p_on(model, tok, rows, frame)
"""

import re

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import arms, models, template
from katlab.generation import engines
from katlab.lab import StageRun
from katlab.tasks.nano.wording import WORKED

# An equation, or a word of reflection: what a reply that works in the open has and an answer has
# not. "Let me" is no such word; instruct models open direct answers with it.
OPEN = re.compile(r"(?i)\d\s*=\s*[-+]?\d|\b(?:wait|hmm|check|alternatively|on second thought)\b")


def in_the_open(text: str) -> bool:
    """Whether a text works in the open: by `OPEN`, or by a line as nano's thoughts have them."""
    return bool(OPEN.search(text) or WORKED.search(text))


def base_arm(stage: StageRun, rows: list[dict]) -> pd.DataFrame:
    """A free reply of the profile's own student to every row, in `arms.run_arm`'s columns.

    It has no tags, so nothing can be malformed. `mode` is "on" where the reply works in the open
    (`in_the_open`), its thought all before the last paragraph. It is right if the last paragraph
    is, or else the reply as a whole: whichever way it words an answer counts.
    """
    s, config = stage.settings, stage.config
    model, tok = models.load(config.model)
    bar = stage.bar(len(rows), "base, free")
    prompts = [
        tok.apply_chat_template(
            row["messages"], tools=row["tools"], mode="none", tokenize=False,
            add_generation_prompt=True,
        )
        for row in rows
    ]  # fmt: skip
    generated = engines.sample(
        config.model,
        model,
        tok,
        prompts,
        max_new_tokens=s.max_new_tokens,
        temperature=s.temperature,
        top_p=0.95,
        seed=stage.seed,
        journal=stage.journal("replies.jsonl"),
        on_batch=lambda done, _: bar.to(done),
    )
    bar.close()
    replies = [text.strip() for text in tok.batch_decode(generated, skip_special_tokens=True)]
    apart = [reply.rpartition("\n\n") for reply in replies]
    found = arms.verdicts(rows * 2, [answer for *_, answer in apart] + replies)
    best = [
        last if last.correct else whole
        for last, whole in zip(found[: len(rows)], found[len(rows) :], strict=True)
    ]
    works = [in_the_open(reply) for reply in replies]
    thoughts = [before if open_ else "" for (before, _, _), open_ in zip(apart, works, strict=True)]
    frame = arms.labels(rows)
    frame = frame.assign(system="base", arm="free", sample=0, problem=None, judge=None)
    frame["mode"] = ["on" if open_ else "off" for open_ in works]
    frame["correct"] = pd.Series([verdict.correct for verdict in best], dtype=object)
    frame["reason"] = [verdict.reason for verdict in best]
    frame["tokens"] = [len(ids) for ids in generated]
    frame["judge_tokens"] = 0
    frame["thought_tokens"] = _counts(tok, thoughts)
    frame["answer_tokens"] = _counts(tok, [answer for *_, answer in apart])
    frame["thought"] = pd.Series([text or None for text in thoughts], dtype=object)
    frame["answer"] = [answer for *_, answer in apart]
    return arms.with_flags(frame.assign(completion=replies))


def _counts(tok: PreTrainedTokenizerBase, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tok(texts, add_special_tokens=False)["input_ids"]]


def p_on(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, rows: list[dict], frame: pd.DataFrame
) -> list[float | None]:
    """P(think_on) against P(think_off) at each decision, after the judge that was sampled.

    `frame` has samples of these rows, by id. None where no decision was taken.
    """
    by_id = {row["id"]: row for row in rows}
    heads = [
        template.prompt(tok, by_id[key]["messages"], by_id[key]["tools"])
        + text.partition(f"<think_{mode}>")[0]
        for key, mode, text in zip(frame["id"], frame["mode"], frame["completion"], strict=True)
        if mode is not None
    ]
    decided = iter(p_after(model, tok, heads))
    return [None if mode is None else next(decided) for mode in frame["mode"]]


@torch.inference_mode()
def p_after(
    model: PreTrainedModel, tok: PreTrainedTokenizerBase, heads: list[str], batch_size: int = 64
) -> list[float]:
    """P(think_on) against P(think_off) as the next token after each text.

    Texts of like length share a batch, so little is padded.
    """
    ids = template.Tags.of(tok).ids
    both = torch.tensor([ids["<think_on>"], ids["<think_off>"]])
    order = sorted(range(len(heads)), key=lambda i: len(heads[i]))
    found = [0.0] * len(heads)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tok(
            [heads[i] for i in chosen],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(model.device)
        places = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=places,
            logits_to_keep=1,
        ).logits[:, -1]  # (batch, vocabulary)
        likely = logits[:, both.to(logits.device)].float().softmax(-1)[:, 0].tolist()
        for i, p in zip(chosen, likely, strict=True):
            found[i] = p
    return found
