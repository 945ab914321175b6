"""Own votes by hand: ties, margins, what cannot be scored, the shortest right sample."""

import pandas as pd
import pytest

from katlab import UserError
from katlab.cold_start import own_votes, votes
from katlab.lab import StageRun
from katlab.tasks.nano import world

ROWS = world.queries(6, seed=2, split="stage_2")


@pytest.mark.parametrize(
    ("on", "off", "margin", "mode"),
    [
        (1.0, 0.5, 0.3, "on"),
        (0.5, 1.0, 0.3, "off"),
        (0.9, 1.0, 0.3, "off"),
        (0.75, 0.5, 0.3, "off"),  # higher, but by less than the margin
        (0.75, 0.5, 0.25, "on"),  # by the margin, which is not less
        (3 / 5, 2 / 5, 0.2, "on"),  # 0.19999999999999996 in floats
        (0.5, 0.5, 0.0, "off"),  # a tie, and no margin to be under
        (1.0, 1.0, 0.3, "off"),
        (0.0, 0.0, 0.3, "off"),
        (0.01, 0.0, 0.0, "on"),
    ],
)
def test_the_higher_rate_wins_by_the_margin_or_more(on, off, margin, mode):
    assert own_votes.preferred(on, off, margin) == mode


def test_what_cannot_be_scored_is_in_no_rate():
    assert votes.pass_rate([True, None, False, True]) == pytest.approx(2 / 3)
    assert votes.pass_rate([None, False]) == 0
    assert votes.pass_rate([None, None]) is None


def samples(*rows: tuple) -> pd.DataFrame:
    """(correct, tokens, problem) of one query's samples; texts tell which."""
    frame = pd.DataFrame({"tokens": [tokens for _, tokens, _ in rows]})
    frame["correct"] = pd.Series([correct for correct, *_ in rows], dtype=object)
    frame["problem"] = pd.Series([problem for *_, problem in rows], dtype=object)
    frame["thought"] = pd.Series([f"thought {i}" for i in range(len(rows))], dtype=object)
    return frame.assign(answer=[f"answer {i}" for i in range(len(rows))])


def test_the_shortest_right_sample_is_kept_by_hand():
    cast = samples(
        (True, 30, None), (False, 5, None), (None, 4, None), (True, 8, "truncated"),
        (True, 20, None), (True, 20, None),
    )  # fmt: skip
    assert own_votes.shortest(cast, "on") == {"thought": "thought 4", "answer": "answer 4"}
    silent = cast.assign(thought=pd.Series([None] * 6, dtype=object))
    assert own_votes.shortest(silent, "off") == {"thought": None, "answer": "answer 4"}
    assert own_votes.shortest(silent, "on") is None, "thinking on without a thought"
    assert own_votes.shortest(cast, "off") is None, "thinking off with one"
    assert own_votes.shortest(samples((False, 5, None), (None, 6, None)), "on") is None


def ballots(monkeypatch, **by_mode: list[list[int | None]]) -> list[dict]:
    """Let each query's samples have these verdicts by forced mode; what was asked of `run_arm`."""
    asked = []

    def run_arm(stage, model, tokenizer, rows, arm, **how):
        asked.append(how | {"arm": arm})
        given = [
            (None if v is None else bool(v), 10 - k, None)
            for row in by_mode[arm]
            for k, v in enumerate(row)
        ]
        frame = samples(*given).assign(arm=arm)
        if arm == "off":
            frame["thought"] = pd.Series([None] * len(frame), dtype=object)
        frame["completion"] = [f"{arm} {i}" for i in range(len(frame))]
        return frame

    monkeypatch.setattr(own_votes.arms, "run_arm", run_arm)
    return asked


@pytest.fixture
def own(stage):
    stage.settings.vote_samples, stage.settings.vote_margin = 3, 0.5
    return stage


def test_votes_of_six_queries_by_hand(own, monkeypatch):
    """On and off right: 3:0, 2:1 (under the margin), 0:0, one mode unscored, 2/2:1/3, 1:3."""
    asked = ballots(
        monkeypatch,
        on=[[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [1, None, 1], [0, 0, 1]],
        off=[[0, 0, 0], [1, 0, 0], [0, 0, 0], [None] * 3, [0, 1, 0], [1, 1, 1]],
    )
    got = own_votes.vote(own, ROWS, None, None)
    assert [row["id"] for row in got] == [ROWS[i]["id"] for i in (0, 1, 2, 4, 5)]
    assert [row["mode"] for row in got] == ["on", "off", "off", "on", "off"]
    assert got[3]["passed"] == {"off": pytest.approx(1 / 3), "on": 1.0}
    assert got[3]["verdicts"] == [False, True, False, True, None, True]
    assert got[3]["forced"] == ["off"] * 3 + ["on"] * 3
    assert got[3]["replies"] == [f"{mode} {i}" for mode in ("off", "on") for i in (12, 13, 14)]
    assert got[0]["shortest"] == {
        "off": None, "on": {"thought": "thought 2", "answer": "answer 2"},
    }  # fmt: skip
    s = own.settings
    assert [(how["arm"], how["style"], how["max_new_tokens"]) for how in asked] == [
        ("off", "trigger", s.vote_tokens), ("on", "trigger", s.max_new_tokens),
    ]  # fmt: skip
    assert {how["samples"] for how in asked} == {3}


def test_without_any_own_vote_there_is_one_sentence(own, monkeypatch):
    ballots(monkeypatch, on=[[1, 1, 1]] * 2, off=[[None] * 3] * 2)
    with pytest.raises(UserError, match="None of the 2 queries could be scored; `katlab doctor`"):
        own_votes.vote(own, ROWS[:2], None, None)


DIRECT, THOUGHT = {"thought": None, "answer": "7"}, {"thought": "3+4", "answer": "7"}


def test_a_query_without_a_right_sample_in_the_mode_that_won_is_left_out():
    rows = [
        {"id": 0, "mode": "off", "shortest": {"off": None, "on": None}},
        {"id": 1, "mode": "off", "shortest": {"off": DIRECT, "on": None}},
        {"id": 2, "mode": "on", "shortest": {"off": DIRECT, "on": None}},
    ]
    assert [row["id"] for row in own_votes.answerable(rows)] == [1]
    with pytest.raises(UserError, match=r"none of 1 queries .* set cold_start.votes to 'teachers'"):
        own_votes.answerable(rows[:1])


def test_the_sample_of_the_mode_responds_and_else_its_teacher_is_asked():
    both = {"off": DIRECT, "on": THOUGHT}
    rows = [
        {"id": 0, "mode": "on", "shortest": both},
        {"id": 1, "mode": "off", "shortest": both},
        {"id": 2, "mode": "on", "shortest": {"off": DIRECT, "on": None}},  # told to think
        {"id": 3, "mode": "off"},  # teachers' votes
    ]
    answered, rest = own_votes.respond(rows)
    assert answered == [
        {"id": 0, "mode": "on", "thought": "3+4", "answer": "7", "teacher": "student"},
        {"id": 1, "mode": "off", "thought": None, "answer": "7", "teacher": "student"},
    ]
    assert rest == [{"id": 2, "mode": "on"}, {"id": 3, "mode": "off"}]


@pytest.mark.parametrize("gone", ["early", "late"])
def test_another_name_of_votes_is_refused(tmp_path, gone):
    with pytest.raises(UserError, match=r"cold_start\.votes.* takes 'own' or 'teachers'"):
        StageRun.create(
            tmp_path, "r", "04_cold_start", profile="tiny", overrides={"cold_start.votes": gone}
        )
