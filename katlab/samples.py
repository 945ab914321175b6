"""Samples to look at: the parts of a completion apart, and what the run's browser shows of them.

parts(tokenizer, ids, template.parse(ids, tags))["thought"]
show(stage, "arms.jsonl", "queries.jsonl", names_mode=prompts.rationale_pattern)
"""

import re

import pandas as pd
from transformers import PreTrainedTokenizerBase

from katlab.lab import StageRun, browser, read_jsonl, write_jsonl
from katlab.template import Parsed

PARTS = ("judge", "thought", "answer")
QUERY = ("id", "messages", "tools", "verifier", "reference")
COLUMNS = browser.Columns(
    parts=PARTS,
    facets={
        "system": "system",
        "arm": "told to think",
        "mode": "decision",
        "category": "category",
        "difficulty": "difficulty",
        "problem": "format problem",
    },
    numbers={
        "reward": "reward",
        "advantage_judge": "advantage of the decision",
        "advantage_answer": "advantage of the answer",
    },
    shares={"think on": ("mode", "on")},
)
DISAGREE = "judge and decision disagree"
MISSING = "thought was missing (wrong without, right with)"


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


def disagrees(frame: pd.DataFrame, names_mode: str) -> pd.Series:
    """Whether a sample that decides by itself has a judge that does not name its mode alone.

    `names_mode` is the profile's prompts.rationale_pattern, whose one group is "on" or "off".
    """
    judges = frame["judge"].fillna("")
    named = [set(re.findall(names_mode, text)) for text in judges]
    other = [modes != {mode} for modes, mode in zip(named, frame["mode"], strict=True)]
    return frame["arm"].eq("auto") & frame["mode"].notna() & pd.Series(other, index=frame.index)


def thought_missing(frame: pd.DataFrame, same: list[str]) -> pd.Series:
    """Whether a direct answer is wrong where most thinking samples of its prompt are right.

    Samples are of one prompt, and of one model, where they agree in the columns `same`.
    """
    thinks = frame[frame["mode"].eq("on")]
    right = thinks["correct"].astype(float).groupby([thinks[name] for name in same]).mean()
    with_thought = frame[same].merge(right.rename("right").reset_index(), on=same, how="left")
    wrong = frame["mode"].eq("off") & frame["correct"].eq(False)
    return wrong & (with_thought["right"].to_numpy() > 0.5)


def keep_queries(stage: StageRun, rows: list[dict]) -> None:
    """Write queries.jsonl: what the samples of a stage were asked, without anyone's solution."""
    if stage.writes:
        kept = ({key: row[key] for key in QUERY} for row in rows)
        write_jsonl(stage.dir / "queries.jsonl", kept)


def show(stage: StageRun, rows: str, queries: str, names_mode: str, **more: object) -> None:
    """Offer a file of samples and the file of their queries to the browser of the run.

    `more` is what `browser.offer` takes besides: a fragment to open with, the pair of systems to
    set side by side, constants for columns that the rows leave out.
    """
    if not stage.writes:
        return
    frame = pd.DataFrame(read_jsonl(stage.dir / rows))
    frame = frame.assign(**more.get("constants", {}))  # type: ignore[arg-type]
    same = ["id", "system", *(["step"] if "step" in frame else [])]
    marked = {DISAGREE: disagrees(frame, names_mode), MISSING: thought_missing(frame, same)}
    flags = {name: frame.index[found].tolist() for name, found in marked.items()}
    browser.offer(stage, rows, queries, COLUMNS, flags, **more)  # type: ignore[arg-type]
