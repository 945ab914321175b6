"""Does the model know when to think? Three arms, paired by prompt, with intervals and controls.

Report sections 4.3.2 and 5 (Figures 7-9, Table 4). Every prompt is sampled in three arms: auto (the
model decides), forced on and forced off. p_on, p_off are the pass rates of the forced arms.

Deviations: (1) the report gives points, this gives 95 % bootstrap intervals over prompts; (2) a
random router, an oracle router, regret, leakage and failures by kind are added (definitions at the
functions); (3) tokens are counted by part (judge, thought, answer) and include the judge.

    frame = evaluation.run_arm(model, tokenizer, rows, "auto", max_new_tokens=160)
    accuracy, low, high = evaluation.bootstrap(frame, "correct")
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, rewards, sampling, template

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
    temperature: float = 1.0,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 128,
    on_batch: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Sample, parse and grade every query row `samples` times in one arm; one frame row a sample.

    Style "judge" (after the cold start): forced arms are prefilled with a short judge analysis and
    the decision. Style "trigger" (after distillation): the mode's trigger token ends the prompt.

    Columns: id, category, difficulty, arm, sample, mode ("on", "off", None), problem (None when
    well formed), correct (True, False, None when unscorable; an answer that is absent or never
    closed is False; of type object, so cast before averaging), tokens, judge_tokens, thought_tokens, answer_tokens, completion. `tokens`
    counts generated and prefilled completion tokens, tags and end token included; a Stage-1
    trigger belongs to the prompt and is not counted.
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
    generated = sampling.sample(
        model,
        tok,
        [prompt + prefill for prompt in prompts for _ in range(samples)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
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


def bootstrap(
    frame: pd.DataFrame, column: str, by: str = "id", n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a column with its 95 % interval, resampling prompts (clusters of samples) n times.

    Unscorable samples (None) are left out. The interval is the percentile bootstrap's.
    """
    sums, counts = _clusters(frame, column, by)
    weights = _weights(len(sums), n, seed)  # (n, prompts)
    drawn = weights @ sums / np.maximum(weights @ counts, 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def paired_difference(
    a: pd.DataFrame, b: pd.DataFrame, column: str, by: str = "id", n: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `column` in `a` minus that in `b`, with its 95 % interval over their shared prompts.

    Both sides of a draw take the same prompts, so what the prompts have in common cancels.
    """
    shared = sorted(_scored(a, column, by) & _scored(b, column, by))
    if not shared:
        raise UserError(f"The two frames share no prompt with a {column}; sample the same rows.")
    sums_a, counts_a = _clusters(a[a[by].isin(shared)], column, by)
    sums_b, counts_b = _clusters(b[b[by].isin(shared)], column, by)
    weights = _weights(len(shared), n, seed)  # (n, prompts)
    drawn = weights @ sums_a / (weights @ counts_a) - weights @ sums_b / (weights @ counts_b)
    low, high = np.quantile(drawn, [0.025, 0.975])
    mean = sums_a.sum() / counts_a.sum() - sums_b.sum() / counts_b.sum()
    return float(mean), float(low), float(high)


def _scored(frame: pd.DataFrame, column: str, by: str) -> set:
    return set(frame.loc[frame[column].notna(), by])


def _clusters(frame: pd.DataFrame, column: str, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Sum and count of a column in each cluster, clusters in sorted order, None left out."""
    values = frame[column].astype(float)
    grouped = values[values.notna()].groupby(frame[by], sort=True)
    if not len(grouped):
        raise UserError(f"No row has a {column}; nothing can be averaged.")
    return grouped.sum().to_numpy(), grouped.count().to_numpy()


def _weights(clusters: int, n: int, seed: int) -> np.ndarray:
    """How often each cluster is drawn in each of n resamples, (n, clusters)."""
    return np.random.default_rng(seed).multinomial(clusters, np.full(clusters, 1 / clusters), n)
