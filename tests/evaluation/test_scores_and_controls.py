"""The papers' scores and the controls, worked by hand."""

import pandas as pd
import pytest

from katlab.evaluation import controls, probes, scores
from katlab.tasks.nano import world


def answered(*rows) -> pd.DataFrame:
    """(difficulty, correct, tokens, thought tokens) each."""
    frame = pd.DataFrame(rows, columns=["difficulty", "correct", "tokens", "thought_tokens"])
    return frame.astype({"correct": object})


def test_auc_oaa_is_the_mean_of_what_is_left_of_the_budget():
    # Right after 0, 25 and 200 of 100 thought tokens, wrong after 0: 1, 0.75, 0 and 0.
    frame = answered((1, True, 9, 0), (1, True, 9, 25), (1, True, 9, 200), (1, False, 9, 0))
    assert scores.auc_oaa(frame, 100) == pytest.approx(1.75 / 4)
    unscorable = answered((1, True, 9, 50), (1, None, 9, 0))
    assert scores.auc_oaa(unscorable, 100) == 0.5


def test_auc_oaa_is_the_area_under_accuracy_by_budget():
    frame = answered((1, True, 9, 0), (1, True, 9, 25), (1, True, 9, 60), (1, False, 9, 10))
    curve = [
        (frame["correct"].astype(float) * (frame["thought_tokens"] < t)).mean()
        for t in range(1, 101)
    ]
    assert scores.auc_oaa(frame, 100) == pytest.approx(sum(curve) / 100)


def test_f1_takes_easy_queries_adjusted_and_hard_ones_plain():
    frame = answered((1, True, 9, 50), (3, True, 9, 50), (4, True, 9, 90), (5, False, 9, 90))
    found = scores.of(frame, 100)
    assert found["auc_oaa_easy"] == 0.5 and found["f1_otb"] == pytest.approx(0.5)
    assert scores.f1_otb(0.6, 0.3) == pytest.approx(0.4)
    assert scores.f1_otb(0, 0) == 0
    assert scores.of(frame[frame["difficulty"] < 4], 100)["f1_otb"] is None


@pytest.mark.parametrize(
    ("right", "tokens", "score"),
    [(151, 24765, 70.09), (83, 5003, 39.74), (7, 947, 3.11)],  # of 200, from the leaderboard
)
def test_ock_score_is_the_leaderboards(right, tokens, score):
    frame = answered(*[(1, i < right, tokens, 0) for i in range(200)])
    assert scores.ock_score(frame) == pytest.approx(score, abs=0.006)


def test_answers_that_work_are_open_thinking():
    off = pd.DataFrame(
        {
            "id": list("abcdef"),
            "mode": ["off"] * 5 + ["on"],
            "problem": None,
            "answer": ["7", "3+4=7", "Wait, 7", "7", "lambda x: x+3", "3+4=7"],
            "answer_tokens": [3, 5, 4, 13, 6, 5],
        }
    )
    on = pd.DataFrame({"id": list("abcde"), "problem": None, "answer_tokens": [3, 5, 4, 6, 6]})
    usual = on.set_index("id")["answer_tokens"]
    opened = scores.works_in_the_open(off, usual)
    assert opened.tolist() == [False, True, True, True, False, True]
    assert scores.hacking(off, on)[0] == pytest.approx(3 / 5)  # f was to think
    assert scores.hacking(off[off["mode"] == "on"], on) is None


def test_what_works_in_the_open_is_told_from_how_an_answer_opens():
    for answer in ("Let me see, this is\n\n7", "lambda x: x+3", "CAB", "12", "C"):
        assert not probes.in_the_open(answer)
    for worked in (
        "13-7=6\n6-5=1",
        "Check: that is right.",
        "46+38: 14 84\n\n84",
        "11+0: 11\n\n11",
    ):
        assert probes.in_the_open(worked)
    for row in world.queries(300, seed=0, split="train"):
        assert probes.in_the_open(f"{row['thought']}\n\n{row['direct']}")
        assert not probes.in_the_open(row["direct"])


def forced(tokens, correct) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": list("abcd"), "category": "math", "difficulty": 1, "cluster": list("wxyz"),
         "correct": correct, "tokens": tokens}
    )  # fmt: skip


ON, OFF = forced([60, 60, 100, 60], [1, 1, 1, 0]), forced([20] * 4, [1, 0, 0, 0])


def test_a_ranking_thinks_until_the_tokens_are_spent():
    ranked = pd.Series({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.2})
    # 80 tokens without a thought; b's costs 40 more, c's 80: 160 in all are b and half of c.
    made = controls.at_equal_tokens(ON, OFF, ranked, 40).set_index("id")
    assert made["thinks"].to_dict() == {"a": 0, "b": 1, "c": 0.5, "d": 0}
    assert made["tokens"].mean() == 40
    assert made["correct"].to_dict() == {"a": 1, "b": 1, "c": 0.5, "d": 0}
    assert list(made["cluster"]) == list("wxyz")


def test_prompts_of_one_score_share_what_is_left():
    made = controls.at_equal_tokens(ON, OFF, pd.Series(1.0, index=list("abcd")), 45)
    assert made["thinks"].tolist() == [0.5] * 4 and made["tokens"].mean() == 45


def test_a_ranking_that_has_too_little_or_too_much_to_spend():
    ranked = pd.Series({"a": 0.1, "b": 0.9, "c": 0.5})  # d is not ranked, so it comes last
    assert controls.at_equal_tokens(ON, OFF, ranked, 5)["thinks"].sum() == 0
    assert controls.at_equal_tokens(ON, OFF, ranked, 999)["thinks"].sum() == 4
    assert controls.at_equal_tokens(ON, OFF, ranked, 60)["thinks"].tolist() == [1, 1, 1, 0]


def asked(*rows) -> list[dict]:
    return [
        {"id": f"{i}", "category": category, "messages": [{"role": "user", "content": text}]}
        for i, (category, text) in enumerate(rows)
    ]


def test_features_are_read_off_the_last_turn():
    rows = asked(("math", "Compute 13+14-5."), ("code", "Write f: x *2 +3."), ("code", "x - y"))
    table = controls.features(rows)
    assert table["operators"].tolist() == [2, 2, 0]
    assert table["length"].tolist() == [16, 17, 5]


def test_a_rule_is_fitted_on_other_queries_and_the_best_is_named():
    rows = asked(
        *[("math", "Compute 1" + "+1" * n + " " * (n % 2) * 8) for n in (1, 1, 2, 3, 4, 4)]
    )
    seen = controls.features(rows)
    missed = pd.Series([False, False, False, True, True, None], index=seen.index, dtype=object)
    fitted = controls.fit(seen, missed)
    assert fitted["operators"]["mean"].to_dict() == {1: 0, 2: 0, 3: 1, 4: 1}
    assert controls.best(seen, missed, fitted) in controls.FEATURES
    new = controls.features(asked(("math", "Add 1+1+1+1+1+1+1"), ("art", "Draw 1")))
    table = controls.score(new, fitted)
    assert table["operators"].tolist() == [1, 0]  # the nearest that was seen
    assert table["category x length"].between(0, 1).all()
