"""Ask, grade, one row per sample: a model's replies in its arms (auto, forced on, forced off).

frame = arms.run_arm(model, tokenizer, rows, "auto", max_new_tokens=160)
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, models, rewards, template
from katlab.generation import local
from katlab.lab import StageRun
from katlab.teachers import LocalResponder, split_thought

ARMS = ("auto", "on", "off")

STYLES = ("judge", "trigger")

LABEL = ("id", "category", "difficulty")

TOKENS = ("tokens", "judge_tokens", "thought_tokens", "answer_tokens")


# The judge analysis that a forced arm is prefilled with, in the words of a rationale (Table 2).
FORCED = {"on": "work it out, think on.", "off": "answer directly, think off."}


def run_arm(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    rows: list[dict],
    arm: str,
    style: str = "judge",
    *,
    max_new_tokens: int,
    temperature: float = 0.6,
    top_p: float = 0.95,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 128,
    on_batch: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Sample, parse and grade every query row `samples` times in one arm; one frame row a sample.

    Style "judge" (after the cold start): forced arms are prefilled with a short judge analysis and
    the decision. Style "trigger" (after distillation): the mode's trigger token ends the prompt.
    Temperature 0.6 and top-p 0.95 are those of the KAT-V1 and HiPO model cards.

    Columns: id, category, difficulty, arm, sample, mode ("on", "off", None), problem (None when
    well formed), correct (True, False, None when unscorable; an answer that is absent or never
    closed is False; of type object, so cast before averaging), tokens, judge_tokens,
    thought_tokens, answer_tokens, completion. `tokens` counts generated and prefilled completion
    tokens, tags and end token included; a Stage-1 trigger belongs to the prompt and is not counted.
    """
    if arm not in ARMS or style not in STYLES or (style == "trigger" and arm == "auto"):
        raise UserError(
            f"There is no arm {arm!r} in style {style!r}; use auto, on or off with the judge "
            "style, on or off with the trigger style."
        )
    tags = template.Tags.of(tok)
    forced = arm if style == "trigger" else None
    prefill = template.judged(arm, FORCED[arm]) if arm != "auto" and style == "judge" else ""
    prompts = [template.prompt(tok, row["messages"], row["tools"], mode=forced) for row in rows]
    generated = local.sample(
        model,
        tok,
        [prompt + prefill for prompt in prompts for _ in range(samples)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        batch_size=batch_size,
        seed=seed,
        on_batch=on_batch,
    )
    # What stands before the sampled ids: the prefill, or in the trigger style an empty judge that
    # only the parser sees, since the trigger alone would read as a judge left open.
    head = prefill or (template.judged(arm, "") if style == "trigger" else "")
    head_ids = tok(head, add_special_tokens=False)["input_ids"] if head else []
    uncounted = len(head_ids) if style == "trigger" else 0
    measured = [_measure(tok, tags, [*head_ids, *ids], uncounted) for ids in generated]
    asked = [row for row in rows for _ in range(samples)]
    frame = pd.DataFrame([{key: row[key] for key in LABEL} for row in asked])
    frame["arm"] = arm
    frame["sample"] = [i % samples for i in range(len(asked))]
    for name in ("mode", "problem"):  # of type object, so that None stays None
        frame[name] = pd.Series([m[name] for m in measured], dtype=object)
    correct = _graded(asked, [m["answer"] for m in measured])
    frame["correct"] = pd.Series(correct, dtype=object)
    for name in TOKENS:
        frame[name] = [m[name] for m in measured]
    trigger = f"<think_{arm}>\n" if style == "trigger" else ""
    frame["completion"] = [trigger + m["completion"] for m in measured]
    return frame


def _measure(tok: PreTrainedTokenizerBase, tags: template.Tags, ids: list, uncounted: int) -> dict:
    """Mode, problem, tokens by part, answer and text of one completion (`uncounted` ids lead)."""
    parsed = template.parse(ids, tags)
    answer = None
    if parsed.answer is not None:
        start, end = parsed.answer
        if end < len(ids) and ids[end] == tags.ids["</answer>"]:
            answer = tok.decode(ids[start:end]).strip()
    return {
        "mode": parsed.mode,
        "problem": parsed.problem,
        "tokens": parsed.length - uncounted,
        "judge_tokens": max(0, parsed.judge[1] - parsed.judge[0] - uncounted),
        "thought_tokens": _width(parsed.thought),
        "answer_tokens": _width(parsed.answer),
        "completion": tok.decode(ids[uncounted : parsed.length]),
        "answer": answer,
    }


def _width(span: tuple[int, int] | None) -> int:
    return 0 if span is None else span[1] - span[0]


def _graded(rows: list[dict], answers: list[str | None]) -> list[bool | None]:
    """Verdicts of all answers in one batch; no answer is wrong without asking a verifier."""
    given = [(i, answer) for i, answer in enumerate(answers) if answer is not None]
    cases = [(rows[i]["verifier"], answer, rows[i]["reference"]) for i, answer in given]
    correct: list[bool | None] = [False] * len(answers)
    for (i, _), verdict in zip(given, rewards.grade(cases), strict=True):
        correct[i] = verdict.correct
    return correct


def teacher_arm(
    stage: StageRun, rows: list[dict], mode: str, tok: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """One reply of a teacher to every row, in `run_arm`'s columns (system "teacher on" or "off").

    Token counts are those of the *student's* tokenizer on the teacher's text: the teachers' own
    tokens are of another size. There is no judge; a reply without an answer has a problem.
    """
    folder = models.locate(vars(stage.config.model)[f"teacher_{mode}"])
    teacher = LocalResponder(Path(folder), stage.settings.max_new_tokens, stage)
    replies = [r for (r,) in teacher.respond(rows, 1, stage.settings.temperature, stage.seed)]
    parts = [split_thought(reply) for reply in replies]
    answers = [answer or None for _, answer in parts]
    frame = pd.DataFrame([{key: row[key] for key in LABEL} for row in rows])
    frame = frame.assign(system=f"teacher {mode}", arm=mode, sample=0, mode=mode)
    frame["problem"] = pd.Series([None if a else "missing answer" for a in answers], dtype=object)
    frame["correct"] = pd.Series(_graded(rows, answers), dtype=object)
    frame["tokens"] = [_count(tok, reply) + 1 for reply in replies]  # and its end token
    frame["judge_tokens"] = 0
    frame["thought_tokens"] = [_count(tok, thought or "") for thought, _ in parts]
    frame["answer_tokens"] = [_count(tok, answer) for _, answer in parts]
    return with_flags(frame.assign(completion=replies))


def _count(tok: PreTrainedTokenizerBase, text: str) -> int:
    return len(tok(text, add_special_tokens=False)["input_ids"])


def with_flags(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `thinks` (decided on) and `well_formed` as booleans."""
    return frame.assign(thinks=frame["mode"].eq("on"), well_formed=frame["problem"].isna())
