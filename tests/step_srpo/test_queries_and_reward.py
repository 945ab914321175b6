"""What Step-SRPO learns from and what it pays: the order of queries, unscorable ones, rewards."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from katlab import UserError, arms, template
from katlab.generation import local
from katlab.lab import StageRun
from katlab.rewards import Verdict
from katlab.step_srpo import queries, reward
from katlab.step_srpo import stage as step_srpo
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


@pytest.mark.parametrize(("share", "size", "hard"), [(0.6, 8, 5), (0.99, 8, 7), (0.9, 2, 1)])
def test_an_easy_query_stays_in_every_step(share, size, hard):
    rows = queries.lay_out(candidates(9, 9), share, steps=3, size=size, seed=0)
    steps = [rows[i : i + size] for i in range(0, 3 * size, size)]
    assert [sum(row["correct"] is False for row in step) for step in steps] == [hard] * 3


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


def test_an_offset_draws_the_queries_and_the_training_of_another_seed(tmp_path, monkeypatch):
    right = pd.DataFrame({"correct": [True] * 3})
    monkeypatch.setattr(arms, "run_arm", lambda *_, **__: right)
    drawn = {}
    for seed, offset in ((0, 0), (0, 7), (7, 0)):
        given = {"step_srpo.candidates": 3, "step_srpo.seed_offset": offset}
        made = StageRun.create(
            tmp_path, f"r-{seed}-{offset}", "05_step_srpo",
            profile="tiny", seed=seed, overrides=given,
        )  # fmt: skip
        asked = [row["messages"] for row in queries.ask(made, None, None)]
        drawn[seed, offset] = asked, step_srpo.arguments(made).seed
    assert drawn[0, 7] == drawn[7, 0] != drawn[0, 0]
    assert drawn[0, 0][1] == 0


def test_format_modes():
    accuracy, form = torch.tensor([1.0, 1.0, 0.0, NAN]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert reward.combine(accuracy, form, "gate")[:3].tolist() == [1.0, 0.0, 0.0]
    additive = reward.combine(accuracy, form, "additive")
    assert additive[:3].tolist() == pytest.approx([1.2, 1.0, 0.2])
    assert reward.combine(accuracy, form, "off")[:3].tolist() == [1.0, 1.0, 0.0]
    assert reward.combine(accuracy, form, "gate")[3].isnan()


def test_a_judge_that_names_another_mode_is_ill_formed_in_the_reward_alone():
    well_formed, agrees = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([1.0, 0.0, 1.0, NAN])
    formed = {how: reward.formed(well_formed, agrees, how) for how in reward.CONSISTENCIES}
    assert formed["format"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert formed["none"].tolist() == formed["reward"].tolist() == [1.0, 1.0, 0.0, 1.0]
    # right answers, the last one unscorable: the gate closes for the second, the last stays open
    accuracy = torch.tensor([1.0, 1.0, 1.0, NAN])
    gated = reward.combine(accuracy, formed["format"], "gate")
    assert gated[:3].tolist() == [1.0, 0.0, 0.0] and gated[3].isnan()


def test_a_format_that_does_not_count_cannot_hold_the_judge(tmp_path):
    off = {"step_srpo.format_mode": "off"}
    with pytest.raises(UserError, match="does nothing while format_mode is 'off'; set it to"):
        StageRun.create(tmp_path, "r", "05_step_srpo", profile="tiny", overrides=off)
    free = off | {"step_srpo.judge_consistency": "reward"}
    assert StageRun.create(tmp_path, "s", "05_step_srpo", profile="tiny", overrides=free)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"format_mode": "bonus"}, "use gate, additive, off"),
        ({"advantages": "hip"}, "mean 'hipo'"),
        ({"judge_consistency": "yes"}, "use none, format, reward"),
        ({"answer_baseline": "all"}, "use mode, group"),
    ],
)
def test_a_wrong_choice_is_one_sentence(setting, words, tmp_path):
    with pytest.raises(UserError, match=words):
        StepSRPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, **setting)


def math_row() -> dict:
    return next(row for row in world.queries(30, 1, "rl") if row["category"] == "math")


NAMES_MODE = "think (on|off)"


def columns_of(tokenizer, row: dict, completions: list[list[int]], consistency="format") -> dict:
    """What TRL gets from the reward functions, by name, for completions of one query."""
    given = {
        "verifier": [row["verifier"]] * len(completions),
        "reference": [json.dumps(row["reference"])] * len(completions),
        "difficulty": [row["difficulty"]] * len(completions),
    }
    logged, reasons = {}, []
    settings = SimpleNamespace(format_mode="gate", judge_consistency=consistency)
    functions = reward.reward_functions(tokenizer, settings, NAMES_MODE, reasons)
    columns = {
        f.__name__: f(completion_ids=completions, log_metric=logged.__setitem__, **given)
        for f in functions
    }
    return columns | {"logged": logged, "reasons": reasons}


def completions(tokenizer, row: dict) -> list[list[int]]:
    """Right, wrong, empty, never closed, stray text, cut off, and ended as a base model ends."""
    right = template.judged("off", "think off") + template.body("off", row["direct"])
    wrong = template.judged("on", "think on") + template.body("on", "77777", "hm")
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
        "judge_agrees": [1.0, 1.0, None, 1.0, 1.0, 1.0, 1.0],
        "ended": [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0],
    }


@pytest.mark.parametrize("consistency", reward.CONSISTENCIES)
def test_a_judge_that_contradicts_its_decision_keeps_its_format_and_its_accuracy(
    consistency, tokenizer
):
    """Names the other mode, both, none, its own: all right and well formed."""
    row = math_row()
    words = ("think on.", "think on? no, think off.", "hm.", "think off.")
    texts = [template.judged("off", said) + template.body("off", row["direct"]) for said in words]
    ids = [tokenizer(text + "<|im_end|>")["input_ids"] for text in texts]
    columns = columns_of(tokenizer, row, ids, consistency)
    assert columns["well_formed"] == columns["accuracy"] == [1.0] * 4
    assert columns["judge_agrees"] == [0.0, 0.0, 0.0, 1.0]
    assert columns["reward"] == ([0.0, 0.0, 0.0, 1.0] if consistency == "format" else [1.0] * 4)


def test_correct_in_training_is_correct_in_evaluation(tmp_path, tokenizer, model, monkeypatch):
    """An answer that never closes is wrong in both, whatever a verifier would say of its text."""
    stage = StageRun.create(tmp_path, "r", "06_evaluation", profile="tiny")
    row = math_row()
    made = completions(tokenizer, row)
    monkeypatch.setattr(local, "sample", lambda *_, **__: made)
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
