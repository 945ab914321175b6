"""Samples to look at: the parts of a completion, and the two marks, by hand."""

import json

import pandas as pd

from katlab import samples, shown, template
from katlab.lab import StageRun, write_jsonl

NAMES = "think (on|off)"


def apart(tokenizer, text: str) -> dict:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    found = samples.parts(tokenizer, ids, template.parse(ids, template.Tags.of(tokenizer)))
    assert sum(found[f"{name}_tokens"] for name in samples.PARTS) <= len(ids)
    return {name: found[name] for name in samples.PARTS}


def test_parts_of_whole_and_of_broken_completions(tokenizer):
    whole = template.judged("on", "math") + template.body("on", "7", "3+4=7") + "<|im_end|>"
    assert apart(tokenizer, whole) == {"judge": "math", "thought": "3+4=7", "answer": "7"}
    direct = template.judged("off", "math") + template.body("off", "7")
    assert apart(tokenizer, direct) == {"judge": "math", "thought": None, "answer": "7"}
    assert apart(tokenizer, "math") == {"judge": "math", "thought": None, "answer": None}
    assert apart(tokenizer, "<judge>\n" + direct)["judge"] == "math"


def frame(*rows: tuple) -> pd.DataFrame:
    columns = ["id", "system", "arm", "mode", "correct", "judge"]
    made = pd.DataFrame(rows, columns=columns).astype({"correct": object})
    return made.assign(completion=made["judge"].fillna("") + "\n</judge>\n\nthink off")


def test_a_judge_agrees_that_names_the_mode_alone():
    rows = frame(
        ("a", "s", "auto", "on", True, "think on"),
        ("a", "s", "auto", "off", True, "think on"),
        ("a", "s", "auto", "off", True, "think on or think off"),
        ("a", "s", "auto", "off", True, None),
        ("a", "s", "auto", None, True, "think on"),  # nothing was decided
    )
    assert samples.judge_agrees(rows, NAMES).tolist() == [True, False, False, False, None]


def test_a_thought_was_missing_where_most_thinking_samples_of_the_prompt_are_right():
    rows = frame(
        ("a", "s", "auto", "off", False, ""),
        ("a", "s", "on", "on", True, ""),
        ("a", "s", "on", "on", True, ""),
        ("a", "s", "on", "on", False, ""),
        ("a", "s", "auto", "off", True, ""),  # right without
        ("a", "other", "auto", "off", False, ""),  # another model's thought says nothing
        ("b", "s", "auto", "off", False, ""),
        ("b", "s", "on", "on", True, ""),
        ("b", "s", "on", "on", False, ""),  # no better than even
        ("c", "s", "auto", "off", None, ""),  # unscorable
        ("c", "s", "on", "on", True, ""),
    )
    found = samples.thought_missing(rows, ["id", "system"])
    assert found[found].index.tolist() == [0]


def test_what_a_stage_offers_names_the_rows_of_its_file(tmp_path):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    row = {"step": 0, "id": "a", "mode": "off", "correct": False, "completion": "think on"}
    thinks = row | {"mode": "on", "correct": True}
    later = row | {"step": 1}  # another step's model: no thought of it is known
    told = row | {"arm": "off"}  # it was told, its judge decides nothing
    write_jsonl(stage.dir / "rollouts.jsonl", [thinks, row, later, told])
    given = {"system": "in training", "arm": "auto"}
    shown.show(stage, "rollouts.jsonl", "candidates.jsonl", constants=given)
    offered = json.loads((stage.dir / "browser.json").read_text())
    assert offered["flags"] == {shown.DISAGREE: [1, 2], shown.MISSING: [1, 3]}
    assert offered["constants"] == given and offered["rows"] == "rollouts.jsonl"
