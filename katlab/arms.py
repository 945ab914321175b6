"""Ask, grade, one row per sample: a model's replies in its arms (auto, forced on, forced off).

Every prompt can be sampled in three arms: auto (the model decides), forced on and forced off.
Replies are kept in the stage's folder as they come, so a kill loses a batch at most.

    frame = arms.run_arm(stage, model, tokenizer, rows, "auto", max_new_tokens=160)
"""

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, rewards, teachers, template
from katlab.generation import engines
from katlab.lab import StageRun
from katlab.rewards import Verdict
from katlab.samples import PARTS, parts

ARMS = ("auto", "on", "off")
STYLES = ("judge", "trigger")
LABEL = ("id", "category", "difficulty")
SOURCE = ("set", "task")  # rows of a sum of sources say where they come from
TOKENS = ("tokens", "judge_tokens", "thought_tokens", "answer_tokens")


def run_arm(
    stage: StageRun,
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
    title: str = "",
) -> pd.DataFrame:
    """Sample, parse and grade every query row `samples` times in one arm; one frame row per sample.

    Style "judge" (after the cold start): forced arms are prefilled with the profile's analysis and
    the decision. Style "trigger" (after distillation): the mode's trigger token ends the
    prompt. Temperature 0.6 and top-p 0.95 are those of the KAT-V1 and HiPO model cards; the seed is
    the run's. Progress shows in the stage under `title`.

    Columns: id, category, difficulty (of a sum of sources also set and task), arm, sample, mode
    ("on", "off", None), problem (None when well formed), correct (True, False, None when
    unscorable; an answer that is absent or never closed is False; of type object, so cast before
    averaging), reason (of the verdict), tokens, judge_tokens, thought_tokens, answer_tokens, judge,
    thought, answer (text; None where absent), completion. `tokens` counts generated and prefilled
    completion tokens, tags and end token included; a Stage-1 trigger belongs to the prompt and is
    not counted.
    """
    if arm not in ARMS or style not in STYLES or (style == "trigger" and arm == "auto"):
        raise UserError(
            f"There is no arm {arm!r} in style {style!r}; use auto, on or off with the judge "
            "style, on or off with the trigger style."
        )
    trigger = arm if style == "trigger" else None
    prefill = forced(stage.config.prompts, arm) if style == "judge" else ""
    prompts = [template.prompt(tok, row["messages"], row["tools"], mode=trigger) for row in rows]
    bar = stage.bar(len(rows) * samples, title or f"{style} arm {arm}")
    generated = engines.sample(
        stage.config.model,
        model,
        tok,
        [prompt + prefill for prompt in prompts for _ in range(samples)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=stage.seed,
        journal=stage.journal("replies.jsonl"),
        on_batch=lambda done, _: bar.to(done),
    )
    bar.close()
    # What stands before the sampled ids: the prefill, or in the trigger style an empty judge that
    # only the parser sees, since the trigger alone would read as a judge left open.
    head = prefill or (template.judged(arm, "") if style == "trigger" else "")
    head_ids = tok(head, add_special_tokens=False)["input_ids"] if head else []
    uncounted = len(head_ids) if style == "trigger" else 0
    completions = [[*head_ids, *ids] for ids in generated]
    tags = template.Tags.of(tok)
    asked = [row for row in rows for _ in range(samples)]
    frame = labels(asked)
    frame["arm"] = arm
    frame["sample"] = [i % samples for i in range(len(asked))]
    measured = [_measure(tok, tags, ids, uncounted) for ids in completions]
    for name in ("mode", "problem"):  # of type object, so that None stays None
        frame[name] = pd.Series([m[name] for m in measured], dtype=object)
    frame = frame.assign(**_graded(asked, answers(tok, completions)))
    for name in TOKENS:
        frame[name] = [m[name] for m in measured]
    for name in PARTS:
        frame[name] = pd.Series([m[name] for m in measured], dtype=object)
    said = f"<think_{arm}>\n" if style == "trigger" else ""
    frame["completion"] = [said + m["completion"] for m in measured]
    return frame


def labels(rows: list[dict]) -> pd.DataFrame:
    """`LABEL` of each query, and `SOURCE` as far as any of them has it (NaN where one has not)."""
    has = [*LABEL, *(key for key in SOURCE if any(key in row for row in rows))]
    return pd.DataFrame([{key: row.get(key) for key in has} for row in rows], columns=has)


def forced(prompts, arm: str) -> str:
    """The prefill that forces a mode: a judge in the words of [prompts]; "" for auto."""
    return "" if arm == "auto" else template.judged(arm, vars(prompts)[f"forced_{arm}"])


def answers(tok: PreTrainedTokenizerBase, completions: list[list[int]]) -> list[str | None]:
    """What each completion (token ids) answers; None where that is absent or never closed."""
    tags = template.Tags.of(tok)
    found: list[str | None] = []
    for ids in completions:
        span = template.parse(ids, tags).answer
        closed = span and span[1] < len(ids) and ids[span[1]] == tags.ids["</answer>"]
        found.append(tok.decode(ids[slice(*span)]).strip() if closed else None)
    return found


def verdicts(rows: list[dict], answers: list[str | None]) -> list[Verdict]:
    """Verdicts of all answers in one batch; no answer is wrong without asking a verifier."""
    given = [(i, answer) for i, answer in enumerate(answers) if answer is not None]
    cases = [(rows[i]["verifier"], answer, rows[i]["reference"]) for i, answer in given]
    found = [Verdict(False, "there is no closed answer")] * len(answers)
    for (i, _), verdict in zip(given, rewards.grade(cases), strict=True):
        found[i] = verdict
    return found


def graded(rows: list[dict], answers: list[str | None]) -> list[bool | None]:
    """`correct` of `verdicts`."""
    return [verdict.correct for verdict in verdicts(rows, answers)]


def _graded(rows: list[dict], answers: list[str | None]) -> dict[str, pd.Series]:
    """The columns correct, of type object, and reason."""
    found = verdicts(rows, answers)
    return {
        "correct": pd.Series([verdict.correct for verdict in found], dtype=object),
        "reason": pd.Series([verdict.reason for verdict in found], dtype=object),
    }


def _measure(tok: PreTrainedTokenizerBase, tags: template.Tags, ids: list, uncounted: int) -> dict:
    """Mode, problem, tokens by part and text of one completion (`uncounted` ids lead)."""
    parsed = template.parse(ids, tags)
    return {
        "mode": parsed.mode,
        "problem": parsed.problem,
        "tokens": parsed.length - uncounted,
        **parts(tok, ids, parsed, uncounted),
        "completion": tok.decode(ids[uncounted : parsed.length]),
    }


def teacher_arm(
    stage: StageRun, rows: list[dict], mode: str, tok: PreTrainedTokenizerBase
) -> pd.DataFrame:
    """One reply of a teacher to every row, in `run_arm`'s columns (system "teacher on" or "off").

    Token counts are those of the *student's* tokenizer on the teacher's text: the teachers' own
    tokens are of another size. There is no judge; a reply without an answer has a problem.
    """
    teacher = teachers.load(stage, mode)
    words = {"on": stage.config.prompts.think, "off": stage.config.prompts.solve}
    asked = teachers.asked(rows, words[mode])
    replies = [r for (r,) in teacher.respond(asked, 1, stage.settings.temperature, stage.seed)]
    patterns = stage.config.prompts.reply_patterns if mode == "on" else ()
    apart = [teachers.split_thought(reply, patterns) for reply in replies]
    said = [answer or None for _, answer in apart]
    frame = labels(rows)
    frame = frame.assign(system=f"teacher {mode}", arm=mode, sample=0, mode=mode)
    frame["problem"] = pd.Series([None if a else "missing answer" for a in said], dtype=object)
    frame = frame.assign(**_graded(rows, said))
    frame["tokens"] = [_count(tok, reply) + 1 for reply in replies]  # and its end token
    frame["judge_tokens"] = 0
    frame["thought_tokens"] = [_count(tok, thought or "") for thought, _ in apart]
    frame["answer_tokens"] = [_count(tok, answer) for _, answer in apart]
    frame["judge"] = None
    frame["thought"] = pd.Series([thought for thought, _ in apart], dtype=object)
    frame["answer"] = pd.Series(said, dtype=object)
    return with_flags(frame.assign(completion=replies))


def _count(tok: PreTrainedTokenizerBase, text: str) -> int:
    return len(tok(text, add_special_tokens=False)["input_ids"])


def with_flags(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the columns `thinks` (decided on) and `well_formed` as booleans."""
    return frame.assign(thinks=frame["mode"].eq("on"), well_formed=frame["problem"].isna())
