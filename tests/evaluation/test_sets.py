"""Each set apart: hand-made samples of two sets, the table, the claims, the figures."""

import pandas as pd
import pytest

from katlab import arms
from katlab.evaluation import sets, systems

THINK, DIRECT = 100, 10  # tokens


def sample(of: str, task: str | None, level: int, i: int, arm: str, thinks: bool, right: bool):
    return {
        "id": f"{of}-{task}-{level}-{i}",
        "set": of,
        "task": task,
        "category": "math",
        "difficulty": level,
        "system": "final",
        "arm": arm,
        "sample": 0,
        "mode": "on" if thinks else "off",
        "thinks": thinks,
        "correct": right,
        "tokens": THINK if thinks else DIRECT,
    }


def made(gate=lambda task, level: level >= 4, right=lambda task, level, on: on) -> pd.DataFrame:
    """A hundred prompts of each of six kinds, in three arms; a thought is right, unless `right`."""
    kinds = [("procedural", "chain_sum", 1), ("procedural", "chain_sum", 4)]
    kinds += [("procedural", "letter_counting", 3), ("gsm8k", None, 4)]
    kinds += [("math500", None, 1), ("math500", None, 5)]
    rows = []
    for of, task, level in kinds:
        for i in range(100):
            for arm, on in (("auto", gate(task, level)), ("on", True), ("off", False)):
                rows.append(sample(of, task, level, i, arm, on, right(task, level, on)))
    return pd.DataFrame(rows)


def held(frame: pd.DataFrame) -> dict[str, bool]:
    return {claim.claim: claim.held for claim in sets.claims(frame)}


def test_labels_carry_the_set_only_where_a_row_has_one():
    plain = {"id": "a", "category": "math", "difficulty": 1, "messages": []}
    assert list(arms.labels([plain])) == ["id", "category", "difficulty"]
    found = arms.labels([plain | {"set": "gsm8k"}, plain | {"set": "procedural", "task": "gcd"}])
    assert found["set"].tolist() == ["gsm8k", "procedural"]
    assert found["task"].isna().tolist() == [True, False]
    assert not sets.several(arms.labels([plain])) and sets.several(found)


def test_each_set_and_each_level_has_its_own_figures():
    frame = made()
    ways = {
        systems.ALWAYS_ON: frame[frame["arm"] == "on"],
        systems.ALWAYS_OFF: frame[frame["arm"] == "off"],
        "final, it decides": frame[frame["arm"] == "auto"],
    }
    table = sets.table(ways)
    assert table.loc[("procedural", "final, it decides"), "prompts"] == 300
    assert table.loc[("procedural", "final, it decides"), "accuracy"].startswith("33%")
    assert table.loc[("gsm8k", "final, it decides"), "tokens"] == "100 [100, 100]"
    assert table.loc[("math500", "final, it decides"), "think-on rate"].startswith("50%")
    levels = sets.by_level(frame)
    assert set(levels.index) == {
        *("chain_sum 1", "chain_sum 4", "letter_counting 3", "gsm8k"),
        *("math500 1", "math500 5"),
    }
    assert levels.loc["chain_sum 1", "accuracy"].startswith("0%")
    assert levels.loc["chain_sum 1", "always thinking"].startswith("100%")
    for figure in (sets.accuracy_tokens(ways), sets.think_on(frame)):
        assert all(axis.get_title() for axis in figure.axes)


def test_a_gate_that_reads_difficulty_holds_what_is_claimed_of_sets():
    def right(task, level, on):
        return (not on) if task == "letter_counting" else on or level < 4

    found = held(made(right=right))
    assert len(found) == 10 and all(found.values()), found


@pytest.mark.parametrize(
    ("gate", "right", "fails"),
    [
        (lambda t, d: True, lambda t, d, on: True, "30 % fewer tokens"),
        (lambda t, d: True, lambda t, d, on: True, "one-digit sums is at most"),
        (lambda t, d: True, lambda t, d, on: True, "higher at the highest level"),
        (lambda t, d: False, lambda t, d, on: True, "Think-on on GSM8K"),
        (lambda t, d: False, lambda t, d, on: True, "sums of four terms and more"),
        (lambda t, d: t == "letter_counting", lambda t, d, on: True, "letter counting is at most"),
        (lambda t, d: False, lambda t, d, on: True, "Letter counting: accuracy above"),
        (lambda t, d: False, lambda t, d, on: on, "gsm8k: accuracy is not below"),
    ],
)
def test_each_claim_can_fail(gate, right, fails):
    (claim,) = [ok for told, ok in held(made(gate, right)).items() if fails in told]
    assert claim is False


@pytest.mark.parametrize(("on", "off"), [(True, True), (False, True), (True, False)])
def test_a_distilled_student_is_held_against_its_teachers(on, off):
    frame = made()
    sides = []
    for system, right in (("distilled", {"on": on, "off": off}), ("teacher", None)):
        for arm in ("on", "off"):
            part = frame[(frame["arm"] == arm) & frame["set"].isin(["gsm8k", "procedural"])]
            name = system if right else f"teacher {arm}"
            sides.append(part.assign(system=name, correct=right[arm] if right else True))
    found = held(pd.concat([frame, *sides]))
    told = "{}: distilled and forced {}, not below its teacher, within 2 points"
    for of in ("procedural", "gsm8k"):
        assert [found[told.format(of, arm)] for arm in ("on", "off")] == [on, off]


def test_of_a_set_that_is_not_there_nothing_is_claimed():
    frame = made()
    found = held(frame[frame["set"] == "gsm8k"])
    assert [told.split(":")[0] for told in found] == [
        "At least 30 % fewer tokens than always thinking, all sets together",
        "Think-on on GSM8K is at least 90%",
        "gsm8k",
    ]
