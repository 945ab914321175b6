"""Teachers' votes by hand: which mode an output votes for, ties, what cannot be scored."""

import pandas as pd
import pytest
from responders import Scripted

from katlab import UserError
from katlab.cold_start import teacher_votes
from katlab.tasks.nano import world

ROWS = world.queries(6, seed=2, split="stage_2")
RIGHT, WRONG, NONE = True, False, None


@pytest.mark.parametrize(
    ("verdicts", "modes", "expected"),
    [
        ([RIGHT, RIGHT, RIGHT], ["off", "off", "on"], (2, 3)),  # easy: all are right
        ([WRONG, WRONG, RIGHT], ["off", "off", "on"], (0, 3)),  # only the thought is
        ([WRONG, RIGHT, RIGHT], ["off", "off", "on"], (1, 3)),  # the student cannot yet
        ([WRONG, WRONG, WRONG], ["off", "off", "on"], (1, 3)),  # nobody is right
        ([RIGHT, RIGHT, WRONG], ["off", "off", "on"], (3, 3)),  # the thought did harm
        ([NONE, RIGHT, NONE], ["off", "off", "on"], (1, 1)),
        ([NONE, NONE, NONE], ["off", "off", "on"], (0, 0)),
    ],
)
def test_an_output_votes_for_its_mode_where_it_is_right(verdicts, modes, expected):
    assert teacher_votes.ballot(verdicts, modes) == expected


def outputs(monkeypatch, student, off, on) -> None:
    """Let every model's outputs have these verdicts, two per query."""
    named = {"student, think-off": student, "teacher, think-off": off, "teacher, think-on": on}
    frames = {}
    for voter, given in named.items():
        flat = [verdict for row in given for verdict in row]
        frame = pd.DataFrame({"completion": [f"{voter} {i}" for i in range(len(flat))]})
        frame["correct"] = pd.Series(flat, dtype=object)
        frames[voter] = frame.assign(arm=voter.rpartition("-")[2], voter=voter)
    monkeypatch.setattr(teacher_votes, "of_student", lambda *_: frames["student, think-off"])
    monkeypatch.setattr(
        teacher_votes, "of_teacher", lambda _, rows, mode: frames[f"teacher, think-{mode}"]
    )


def test_the_majority_of_all_outputs_sets_the_mode(stage, monkeypatch):
    """By hand, off of all: 4 of 6; 0 of 6; 3 of 6, a tie; none scored; 2 of 3; 1 of 2, a tie."""
    stage.settings.vote_samples = 2
    outputs(
        monkeypatch,
        student=[[RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, WRONG], [NONE] * 2, [RIGHT, NONE],
                 [WRONG, NONE]],
        off=[[RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, RIGHT], [NONE] * 2, [RIGHT, NONE],
             [RIGHT, NONE]],
        on=[[RIGHT, RIGHT], [RIGHT, RIGHT], [RIGHT, RIGHT], [NONE] * 2, [RIGHT, NONE],
            [NONE, NONE]],
    )  # fmt: skip
    got = teacher_votes.vote(stage, ROWS)
    assert [row["id"] for row in got] == [ROWS[i]["id"] for i in (0, 1, 2, 4, 5)]
    assert [(row["votes_off"], row["votes"], row["mode"]) for row in got] == [
        (4, 6, "off"), (0, 6, "on"), (3, 6, "on"), (2, 3, "off"), (1, 2, "on"),
    ]  # fmt: skip
    assert got[2]["passed"] == {
        "student, think-off": 0.5, "teacher, think-off": 1.0, "teacher, think-on": 1.0,
    }  # fmt: skip
    assert got[4]["passed"]["teacher, think-on"] is None
    assert got[1]["replies"][1:3] == ["student, think-off 3", "teacher, think-off 2"]
    assert got[1]["forced"] == ["off"] * 4 + ["on"] * 2
    assert got[1]["voter"][::2] == ["student, think-off", "teacher, think-off", "teacher, think-on"]


def test_without_any_vote_there_is_one_sentence(stage, monkeypatch):
    stage.settings.vote_samples = 2
    outputs(monkeypatch, *[[[NONE] * 2] * 2] * 3)
    with pytest.raises(UserError, match="None of the 2 queries could be scored; `katlab doctor`"):
        teacher_votes.vote(stage, ROWS[:2])


@pytest.mark.parametrize(("mode", "request_"), [("off", "solve"), ("on", "think")])
def test_a_teacher_is_asked_in_its_mode_and_graded(stage, monkeypatch, mode, request_):
    """The first output is right, the second thinks without end, the third is wrong."""
    stage.settings.vote_samples = 3
    setattr(stage.config.prompts, request_, "In this mode, please.")

    def reply(row, k):
        assert row["messages"][-1]["content"].endswith("In this mode, please.")
        direct = next(one["direct"] for one in ROWS if one["id"] == row["id"])
        thought = "<think>1+1=2</think>" if mode == "on" else ""
        return (f"{thought}{direct}", "<think>and then", f"{thought}no idea")[k]

    teacher = Scripted(reply)
    monkeypatch.setattr(teacher_votes.teachers, "load", lambda _, asked: {mode: teacher}[asked])
    frame = teacher_votes.of_teacher(stage, ROWS[:2], mode)
    assert teacher.asked == [2]
    assert frame["correct"].tolist() == [True, False, False] * 2
    assert set(frame["arm"]) == {mode} and set(frame["voter"]) == {f"teacher, think-{mode}"}
