"""Samples to look at: a completion in its parts, and what is worth finding among many.

parts(tokenizer, ids, template.parse(ids, tags))["thought"]
"""

import re

import pandas as pd
from transformers import PreTrainedTokenizerBase

from katlab.template import Parsed

PARTS = ("judge", "thought", "answer")


def parts(tok: PreTrainedTokenizerBase, ids: list[int], parsed: Parsed, lead: int = 0) -> dict:
    """Tokens and text of judge, thought and answer; a part that is not there is None with 0 tokens.

    `lead` ids at the front are the parser's alone: they are in no count and no text.
    """
    spans = dict(zip(PARTS, (parsed.judge, parsed.thought, parsed.answer), strict=True))
    spans["judge"] = (min(lead, parsed.judge[1]), parsed.judge[1])
    found: dict[str, object] = {}
    for name, span in spans.items():
        found[f"{name}_tokens"] = span[1] - span[0] if span else 0
    for name, span in spans.items():
        found[name] = tok.decode(ids[slice(*span)]).strip() if span and span[1] > span[0] else None
    if judge := found["judge"]:  # the span runs through the decision
        found["judge"] = str(judge).removeprefix("<judge>").partition("</judge>")[0].strip()
    return found


def judge_agrees(frame: pd.DataFrame, names_mode: str) -> pd.Series:
    """Whether each sample's judge names the mode decided on and no other; None without a decision.

    `names_mode` is the profile's prompts.rationale_pattern, whose one group is "on" or "off"; a
    judge that names no mode does not agree.
    """
    named = [
        set(re.findall(names_mode, text.partition("</judge>")[0])) for text in frame["completion"]
    ]
    agrees = [
        None if pd.isna(mode) else modes == {mode}
        for modes, mode in zip(named, frame["mode"], strict=True)
    ]
    return pd.Series(agrees, index=frame.index, dtype=object)


def thought_missing(frame: pd.DataFrame, same: list[str]) -> pd.Series:
    """Whether a direct answer is wrong where most thinking samples of its prompt are right.

    Samples are of one prompt, and of one model, where they agree in the columns `same`.
    """
    thinks = frame[frame["mode"].eq("on")]
    right = thinks["correct"].astype(float).groupby([thinks[name] for name in same]).mean()
    with_thought = frame[same].merge(right.rename("right").reset_index(), on=same, how="left")
    wrong = frame["mode"].eq("off") & frame["correct"].eq(False)
    return wrong & (with_thought["right"].to_numpy() > 0.5)
