"""What Step-SRPO learns from and what it pays: the order of queries, unscorable ones, rewards."""

import json

import pandas as pd
import pytest
import torch

from katlab import UserError, arms, template
from katlab.lab import StageRun
from katlab.rewards import Verdict
from katlab.step_srpo import queries, reward
from katlab.step_srpo.config import StepSRPOConfig
from katlab.tasks.nano import world

NAN = float("nan")


def candidates(missed: int, known: int, unscorable: int = 0) -> list[dict]:
    kinds = [("m", False, missed), ("k", True, known), ("u", None, unscorable)]
    return [{"id": f"{kind}{i}", "correct": ok} for kind, ok, n in kinds for i in range(n)]


def test_every_step_has_the_same_share_of_missed_queries():
    rows = queries.lay_out(candidates(6, 6), 0.375, steps=4, size=8, seed=0)
    steps = [[row["id"] for row in rows[i : i + 8]] for i in range(0, 32, 8)]
    assert [sum(name[0] == "m" for name in step) for step in steps] == [3, 3, 3, 3]
    assert len(set(steps[0][:3] + steps[1][:3])) == 6  # no missed one again before all have come
    assert rows == queries.lay_out(candidates(6, 6), 0.375, 4, 8, seed=0)


@pytest.mark.parametrize(("missed", "known"), [(0, 3), (3, 0)])
def test_one_kind_alone_fills_the_steps(missed, known):
    rows = queries.lay_out(candidates(missed, known), 0.5, steps=2, size=4, seed=0)
    assert len(rows) == 8


def test_a_candidate_that_nobody_could_grade_is_left_out_and_counted():
    asked = candidates(2, 2, unscorable=4)
    rows = queries.lay_out(asked, 0.5, steps=4, size=4, seed=0)
    assert {row["id"][0] for row in rows} == {"m", "k"}
    assert queries.counts(asked) == {"unscorable": 4, "missed_without_thinking": 0.5}
    with pytest.raises(UserError, match="None of the 3 RL candidates"):
        queries.counts(candidates(0, 0, unscorable=3))


def test_asking_tells_unscorable_from_missed(tmp_path, monkeypatch):
    stage = StageRun.create(
        tmp_path, "r", "05_step_srpo", profile="tiny", overrides={"step_srpo.candidates": 3}
    )
    verdicts = pd.DataFrame({"correct": pd.Series([True, None, False], dtype=object)})
    monkeypatch.setattr(arms, "run_arm", lambda *_, **__: verdicts)
    assert [row["correct"] for row in queries.ask(stage, None, None)] == [True, None, False]


def test_format_modes():
    accuracy, form = torch.tensor([1.0, 1.0, 0.0, NAN]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert reward.combine(accuracy, form, "gate")[:3].tolist() == [1.0, 0.0, 0.0]
    additive = reward.combine(accuracy, form, "additive")
    assert additive[:3].tolist() == pytest.approx([1.2, 1.0, 0.2])
    assert reward.combine(accuracy, form, "off")[:3].tolist() == [1.0, 1.0, 0.0]
    assert reward.combine(accuracy, form, "gate")[3].isnan()


@pytest.mark.parametrize(
    ("setting", "words"),
    [({"format_mode": "bonus"}, "use gate, additive, off"), ({"advantages": "hip"}, "mean 'hipo'")],
)
def test_a_wrong_choice_is_one_sentence(setting, words, tmp_path):
    with pytest.raises(UserError, match=words):
        StepSRPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **setting)


def math_row() -> dict:
    return next(row for row in world.queries(30, 1, "rl") if row["category"] == "math")


def columns_of(tokenizer, row: dict, completions: list[list[int]], format_mode="gate") -> dict:
    """What TRL gets from the reward functions, by name, for completions of one query."""
    given = {
        "verifier": [row["verifier"]] * len(completions),
        "reference": [json.dumps(row["reference"])] * len(completions),
        "difficulty": [row["difficulty"]] * len(completions),
    }
    logged, reasons = {}, []
    functions = reward.reward_functions(tokenizer, format_mode, reasons)
    columns = {
        f.__name__: f(completion_ids=completions, log_metric=logged.__setitem__, **given)
        for f in functions
    }
    return columns | {"logged": logged, "reasons": reasons}


def completions(tokenizer, row: dict) -> list[list[int]]:
    """Right, wrong, empty, never closed, stray text, cut off, and ended as a base model ends."""
    right = template.judged("off", "x") + template.body("off", row["direct"])
    wrong = template.judged("on", "x") + template.body("on", "77777", "hm")
    unclosed = right.removesuffix("</answer>")
    texts = [t + "<|im_end|>" for t in (right, wrong, "nothing", unclosed, right + " and more")]
    return [tokenizer(text)["input_ids"] for text in [*texts, unclosed, right + "<|endoftext|>"]]


def test_rewards_read_modes_answers_and_ends_from_token_ids(tokenizer):
    row = math_row()
    columns = columns_of(tokenizer, row, completions(tokenizer, row))
    reasons = columns.pop("reasons")
    assert len(reasons) == 7 and reasons[0] != reasons[1]
    assert reasons[2] == reasons[3] == "there is no closed answer"
    assert columns.pop("logged") == {f"think_on/level_{row['difficulty']}": pytest.approx(1 / 7)}
    assert columns == {
        "reward": [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        "accuracy": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0],
        "well_formed": [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0],
        "think_on": [0.0, 1.0, None, 0.0, 0.0, 0.0, 0.0],
        "ended": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0],
    }


def test_correct_in_training_is_correct_in_evaluation(tmp_path, tokenizer, model, monkeypatch):
    """An answer that never closes is wrong in both, whatever a verifier would say of its text."""
    stage = StageRun.create(tmp_path, "r", "06_evaluation", profile="tiny")
    row = math_row()
    made = completions(tokenizer, row)
    monkeypatch.setattr(arms.local, "sample", lambda *_, **__: made)
    frame = arms.run_arm(stage, model, tokenizer, [row] * len(made), "auto", max_new_tokens=8)
    accuracy = columns_of(tokenizer, row, made)["accuracy"]
    assert frame["correct"].astype(float).tolist() == accuracy
    assert accuracy[0] == 1.0 and accuracy[3] == accuracy[5] == 0.0


def test_an_unscorable_answer_is_no_reward(tokenizer, monkeypatch):
    monkeypatch.setattr(
        arms.rewards, "grade", lambda rows: [Verdict(None, "no", 0.0) for _ in rows]
    )
    row = math_row()
    columns = columns_of(tokenizer, row, completions(tokenizer, row)[:3])
    assert columns["accuracy"] == [None, None, 0.0]  # none at all is wrong without a verifier
    assert [x != x for x in columns["reward"]] == [True, True, False]
