"""Arms: what is asked, how a completion is measured and graded, and who may answer."""

import pandas as pd
import pytest
from responders import Scripted

from katlab import UserError, arms, template
from katlab.generation import local
from katlab.lab import StageRun
from katlab.tasks.nano import world

ROWS = world.queries(30, seed=0, split="eval")


def scripted(monkeypatch, tokenizer, completions: list[str]) -> list[str]:
    """Let `sample` return these completions; gives back the list that its prompts will be in."""
    seen = []

    def sample(model, tok, prompts, *, max_new_tokens, **_):
        seen.extend(prompts)
        return [tok(text, add_special_tokens=False)["input_ids"] for text in completions]

    monkeypatch.setattr(local, "sample", sample)
    return seen


def count(tokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_auto_arm_measures_each_part_and_grades_the_answer_span(stage, monkeypatch, tokenizer):
    row = next(r for r in ROWS if r["category"] == "math")
    right, wrong = row["direct"], str(int(row["direct"]) + 1)
    off = f"go\n</judge>\n\n<think_off>\n<answer>\n{right}\n</answer><|im_end|>"
    on = f"go\n</judge>\n\n<think_on>\n<think>\n{right}\n</think>\n\n<answer>\n{wrong}\n</answer>"
    seen = scripted(monkeypatch, tokenizer, [off, on + "<|im_end|>"])
    frame = arms.run_arm(stage, None, tokenizer, [row], "auto", max_new_tokens=9, samples=2)
    assert seen == [template.prompt(tokenizer, row["messages"])] * 2
    assert frame["sample"].tolist() == [0, 1]
    assert frame["mode"].tolist() == ["off", "on"]
    assert frame["problem"].tolist() == [None, None]
    assert frame["correct"].tolist() == [True, False]
    assert frame["tokens"].tolist() == [count(tokenizer, off), count(tokenizer, on) + 1]
    assert frame["judge_tokens"].tolist() == [
        count(tokenizer, "go\n</judge>\n\n<think_off>"),
        count(tokenizer, "go\n</judge>\n\n<think_on>"),
    ]
    assert frame["thought_tokens"].tolist() == [0, count(tokenizer, f"\n{right}\n")]
    assert frame["answer_tokens"].tolist() == [
        count(tokenizer, f"\n{right}\n"),
        count(tokenizer, f"\n{wrong}\n"),
    ]
    assert frame["completion"][0] == off
    assert frame["judge"].tolist() == ["go", "go"]
    assert frame["thought"].tolist() == [None, right]
    assert frame["answer"].tolist() == [right, wrong]
    assert frame["reason"][0] != frame["reason"][1]


def test_forced_judge_arm_counts_its_prefill(stage, monkeypatch, tokenizer):
    row = next(r for r in ROWS if r["category"] == "math")
    rest = f"<answer>\n{row['direct']}\n</answer><|im_end|>"
    seen = scripted(monkeypatch, tokenizer, [rest])
    frame = arms.run_arm(stage, None, tokenizer, [row], "off", max_new_tokens=9)
    prefill = template.judged("off", stage.config.prompts.forced_off)
    assert seen[0].endswith("<judge>\n" + prefill)
    assert (frame["mode"][0], frame["problem"][0], frame["correct"][0]) == ("off", None, True)
    assert frame["tokens"][0] == count(tokenizer, prefill) + count(tokenizer, rest)
    assert frame["judge_tokens"][0] == count(tokenizer, prefill.removesuffix("\n"))
    assert frame["completion"][0] == prefill + rest


def test_trigger_arm_has_no_judge_and_counts_only_what_was_generated(stage, monkeypatch, tokenizer):
    row = next(r for r in ROWS if r["category"] == "math")
    rest = f"<think>\n1\n</think>\n\n<answer>\n{row['direct']}\n</answer><|im_end|>"
    seen = scripted(monkeypatch, tokenizer, [rest])
    frame = arms.run_arm(stage, None, tokenizer, [row], "on", "trigger", max_new_tokens=9)
    assert seen[0].endswith("<|im_start|>assistant\n<think_on>\n")
    assert (frame["mode"][0], frame["problem"][0], frame["correct"][0]) == ("on", None, True)
    assert frame["tokens"][0] == count(tokenizer, rest)
    assert frame["judge_tokens"][0] == 0
    assert (frame["judge"][0], frame["thought"][0]) == (None, "1")
    assert frame["completion"][0] == "<think_on>\n" + rest


@pytest.mark.parametrize(
    ("ending", "problem"),
    [
        ("<think_off>\n<answer>\n{}", "truncated"),
        ("<think_off>\n<answer>\n{}<|im_end|>", "unclosed"),
        ("no decision<|im_end|>", "missing decision"),
    ],
)
def test_an_answer_that_never_closes_is_wrong(stage, monkeypatch, tokenizer, ending, problem):
    row = next(r for r in ROWS if r["category"] == "math")
    text = "go\n</judge>\n\n" + ending.format(row["direct"])
    scripted(monkeypatch, tokenizer, [text])
    frame = arms.run_arm(stage, None, tokenizer, [row], "auto", max_new_tokens=9)
    assert frame["problem"][0] == problem
    assert frame["correct"][0] is False


def test_unscorable_stays_none(stage, monkeypatch, tokenizer):
    row = next(r for r in ROWS if r["category"] == "tool_use")
    text = f"go\n</judge>\n\n<think_off>\n<answer>\n{row['direct']}\n</answer><|im_end|>"
    broken = row | {"reference": {"tools": "none"}}
    scripted(monkeypatch, tokenizer, [text, text])
    frame = arms.run_arm(stage, None, tokenizer, [row, broken], "auto", max_new_tokens=9)
    assert frame["correct"].tolist() == [True, None]


def test_run_arm_follows_the_rows_and_the_seed(tmp_path, model, tokenizer):
    def drawn(name: str, seed: int) -> pd.DataFrame:
        stage = StageRun.create(tmp_path, name, "04_cold_start", profile="tiny", seed=seed)
        stage.config.model.sample_batch = 5
        return arms.run_arm(stage, model, tokenizer, ROWS[:6], "on", max_new_tokens=8, samples=2)

    first, again, other = drawn("a", 0), drawn("b", 0), drawn("c", 1)
    assert first["id"].tolist() == [r["id"] for r in ROWS[:6] for _ in range(2)]
    pd.testing.assert_frame_equal(first, again)
    assert first["completion"].tolist() != other["completion"].tolist()
    assert list(first.columns) == [
        *("id", "category", "difficulty", "arm", "sample", "mode", "problem", "correct", "reason"),
        *("tokens", "judge_tokens", "thought_tokens", "answer_tokens"),
        *("judge", "thought", "answer", "completion"),
    ]
    parts = first[["judge_tokens", "thought_tokens", "answer_tokens"]].sum(axis=1)
    assert (parts <= first["tokens"]).all()


def test_there_is_no_auto_arm_before_the_cold_start(stage, tokenizer):
    with pytest.raises(UserError, match="on or off with the trigger style"):
        arms.run_arm(stage, None, tokenizer, ROWS[:1], "auto", "trigger", max_new_tokens=8)


def test_the_answer_of_a_completion_is_none_unless_it_closes(tokenizer):
    start = "x\n</judge>\n\n<think_off>\n"
    said = [
        "<answer>\n7\n</answer><|im_end|>",
        "<answer>\n7<|im_end|>",
        "<answer>\n7",
        "7<|im_end|>",
    ]
    ids = [tokenizer(start + text, add_special_tokens=False)["input_ids"] for text in said]
    assert arms.answers(tokenizer, ids) == ["7", None, None, None]
    assert arms.graded([ROWS[0]] * 4, [None] * 4) == [False] * 4


def test_a_mode_is_forced_in_the_words_of_the_profile(stage, monkeypatch, tokenizer):
    stage.config.prompts.forced_on = "12+3, level 4."
    seen = scripted(monkeypatch, tokenizer, ["<|im_end|>"])
    arms.run_arm(stage, None, tokenizer, ROWS[:1], "on", max_new_tokens=9)
    assert seen[0].endswith("<judge>\n12+3, level 4.\n</judge>\n\n<think_on>\n")
    assert arms.forced(stage.config.prompts, "auto") == ""


def test_a_teachers_reply_is_measured_with_the_students_tokens(tmp_path, monkeypatch, tokenizer):
    stage = StageRun.create(tmp_path, "r", "06_evaluation", profile="tiny")
    row = next(r for r in ROWS if r["category"] == "math")
    said = [f"<think>\n1+1=2\n</think>\n\n{row['direct']}", row["direct"], ""]
    monkeypatch.setattr(
        arms.teachers, "load", lambda stage, mode: Scripted(lambda _, k: replies.pop(0))
    )
    replies = list(said)
    frame = arms.teacher_arm(stage, [row] * 3, "on", tokenizer)
    assert frame["problem"].tolist() == [None, None, "missing answer"]
    assert frame["correct"].tolist() == [True, True, False]
    assert frame["thought_tokens"].tolist() == [count(tokenizer, "1+1=2"), 0, 0]
    assert frame["answer_tokens"].tolist() == [count(tokenizer, row["direct"])] * 2 + [0]
    assert frame["tokens"].tolist() == [count(tokenizer, text) + 1 for text in said]
