"""What notebook 05 shows: the example worked by hand, coloured tokens, figures, the verdict."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from katlab.step_srpo import example, figures, tables
from katlab.step_srpo.stage import changes

JUDGE, ANSWER = "judge's advantage", "answer's advantage"


def test_the_example_is_what_the_prose_computes(tokenizer):
    shown = example.table(tokenizer)
    assert shown["mode"].tolist() == ["on", "on", "off", "off"]
    assert shown["reward"].tolist() == [1.0, 1.0, 1.0, 0.0]
    assert shown[JUDGE].tolist() == pytest.approx([0.75, 0.75, -0.40, -1.10], abs=0.005)
    assert shown[ANSWER].tolist() == [0.0, 0.0, 1.0, -1.0]
    plain = example.table(tokenizer, advantages="grpo")
    assert plain[JUDGE].tolist() == plain[ANSWER].tolist() == [0.5, 0.5, 0.5, -1.5]


def test_omega_turns_the_example_at_one_half(tokenizer):
    judge = {o: example.table(tokenizer, omega=o)[JUDGE] for o in (0.0, 0.49, 0.51)}
    assert judge[0.0].tolist() == judge[0.49].tolist()
    assert judge[0.49][1] > judge[0.49][3] and judge[0.51][1] < judge[0.51][3]


def test_the_judges_colour_ends_with_the_decision(tokenizer):
    pieces, values = example.tokens(tokenizer, 3)
    end = pieces.index("<think_off>") + 1
    assert max(values[:end]) < 0 < min(values[end:])
    page = figures.coloured(pieces, values, "rollout 3")
    assert page.count("220,38,38") == end and page.count("37,99,235") == len(values) - end
    assert "&lt;think_off&gt;" in page and "<think_off>" not in page
    assert page.count("rgba(220,38,38,0.40)") == end  # the strongest of the completion


def rollouts(modes=("on", "off"), correct=(True, False)) -> pd.DataFrame:
    rows = [
        {
            "step": step,
            "difficulty": level,
            "mode": mode,
            "correct": ok,
            "tokens": 10 + step,
            "id": level,
        }
        for step in range(12)
        for level in (1, 5)
        for mode, ok in zip(modes, correct, strict=True)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("modes", "correct"), [(("on", "off"), (True, False)), ((None, None), (False, None))]
)
@pytest.mark.parametrize("draw", [figures.modes, figures.lengths])
def test_figures_of_rollouts_also_of_a_model_that_decides_nothing(draw, modes, correct):
    figure, takeaway = draw(rollouts(modes, correct))
    assert takeaway.endswith(".") and figure.get_suptitle()
    plt.close(figure)


def test_the_queries_before_and_after_they_are_chosen_by_hand():
    """Three known ones of difficulty 1, one missed of 5; of the rollouts three in four are hers."""
    rows = [("a", 1, True), ("b", 1, True), ("c", 1, True), ("d", 5, False), ("e", 5, None)]
    asked = pd.DataFrame(rows, columns=["id", "difficulty", "correct"])
    figure, takeaway = figures.queries(asked, pd.DataFrame({"id": list("addadddd")}))
    assert takeaway == (
        "The mean difficulty goes from 2.0 among the candidates to 4.0 among the queries trained "
        "on, the share missed without a thought from 25% to 75%; 25% are of the easiest difficulty "
        "(75% before)."
    )
    before, after = ([bar.get_height() for bar in axis.patches] for axis in figure.axes)
    assert before == [0.75, 0, 0, 0.25] and after == [0.25, 0, 0, 0.75]  # right: 1, 5; missed: 1, 5
    plt.close(figure)


def test_a_window_is_named_and_has_its_middle():
    rows, axis = figures.windows(rollouts())
    assert axis == {"xlabel": "step (means over 2)", "xlim": (0, 11)}
    assert sorted(set(rows["window"])) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5]


def test_a_last_window_of_fewer_steps_has_its_own_middle():
    rows, _ = figures.windows(pd.DataFrame({"step": range(14), "mode": "on"}))
    assert sorted(set(rows["window"])) == [0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 12.5]
    rows, axis = figures.windows(pd.DataFrame({"step": range(15), "mode": "on"}))
    assert rows["window"].iloc[-1] == 14.0 and axis["xlim"] == (0, 14)


def test_the_reward_figure_tells_how_many_groups_agree():
    metrics = [{"step": i, "reward": i / 10, "frac_reward_zero_std": 0.25} for i in range(1, 4)]
    figure, takeaway = figures.reward([*metrics, {"step": 4, "train_loss": 0.0}])
    assert takeaway.startswith("The mean reward goes from 0.10 to 0.30; in 25% of the groups")
    plt.close(figure)


def evaluation(problem=None) -> pd.DataFrame:
    """Before: always on, 20 tokens. After: off at level 1, on at level 5, 20 and 12 tokens."""
    rows = []
    for student in ("before", "after"):
        for i, level in enumerate((1, 1, 5, 5)):
            thinks = student == "before" or level == 5
            row = {"student": student, "id": str(i), "difficulty": level, "problem": problem}
            row |= {"mode": "on" if thinks else "off", "tokens": 20 if thinks else 12}
            rows.append(row | {"correct": i != 3})
    return pd.DataFrame(rows)


def test_changes_by_hand():
    now = changes(evaluation())
    assert now["think_on_rate"] == 0.5 and now["accuracy"] == 0.75
    assert (now["think_on_easiest"], now["think_on_hardest"]) == (0.0, 1.0)
    assert now["tokens_saved"] == pytest.approx(0.2) and now["accuracy_change"] == 0.0
    figure, takeaway = figures.boundary(evaluation())
    assert "from 100% to 0% at the easiest" in takeaway
    plt.close(figure)


def test_each_kind_of_query_by_itself():
    rows = evaluation().assign(set="procedural", task="gcd")
    rows.loc[rows["difficulty"] == 5, ["set", "task"]] = "gsm8k", None
    figure, takeaway = figures.kinds(rows)
    assert takeaway == (
        "Held out, it thinks most on gsm8k (100%) and least on gcd (0%); gcd moved most, by -100 "
        "points."
    )
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert heights == [1.0, 1.0, 0.0, 1.0]  # gcd, gsm8k before; gcd, gsm8k after
    assert [bar.get_height() for bar in figure.axes[1].patches] == [1.0, 0.5, 1.0, 0.5]
    plt.close(figure)
    figure, takeaway = figures.kinds(rows.drop(columns="task"))
    assert "least on procedural (0%)" in takeaway
    plt.close(figure)


def test_missed_candidates_leave_unscorable_ones_out():
    rows = [(1, True), (1, None), (5, False), (5, False), (5, True)]
    shown = tables.missed(pd.DataFrame(rows, columns=["difficulty", "correct"]))
    assert shown["candidates"].tolist() == [2, 3] and shown["unscorable"].tolist() == [1, 0]
    assert shown["missed"].tolist() == pytest.approx([0.0, 0.667])
