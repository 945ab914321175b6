"""Where queries come from: a user's file, the nano world, and splits that never share a problem."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katlab import UserError, lab, rewards
from katlab.lab import stages
from katlab.lab.rows import write_jsonl
from katlab.tasks import queries
from katlab.tasks.nano import world

ROWS = world.queries(300, seed=7, split="train")
ROWS += [row | {"id": f"again-{row['id']}"} for row in ROWS[::20]]  # a problem may come twice
SPLITS = tuple(queries.SHARES)


@pytest.fixture
def config(tmp_path):
    return lab.load_profile("nano", {"model.queries": str(tmp_path / "mine.jsonl")})


def wrote(config, rows):
    write_jsonl(config.model.queries, rows)
    return config


def test_a_missing_query_file_is_named_with_its_setting(config):
    with pytest.raises(UserError, match="model.queries"):
        queries.load(config, 10, 0, "stage_1")


def test_queries_come_from_the_users_file(config):
    wrote(config, ROWS)
    rows = queries.load(config, 5, 0, "stage_1")
    assert len(rows) == 5 and all(row in ROWS for row in rows)
    assert queries.load(config, 5, 0, "stage_1") == rows != queries.load(config, 5, 1, "stage_1")


def all_of(config, split) -> list[dict]:
    """Every row of a split, however many there are."""
    found = [row for row, part in queries.assigned(ROWS) if part == split]
    return queries.load(config, len(found), 0, split)


def test_rows_without_a_split_fall_into_one_each(config):
    """The same problem under two ids is one problem, so both its rows share a split."""
    wrote(config, ROWS)
    texts = {split: [queries.problem(row) for row in all_of(config, split)] for split in SPLITS}
    assert sum(map(len, texts.values())) == len(ROWS)
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or set(texts[one]).isdisjoint(texts[other]), (one, other)
    twice = [text for text in texts["stage_1"] if texts["stage_1"].count(text) > 1]
    assert twice, "no problem comes again, and the test says nothing of repeats"


def test_problems_are_dealt_in_the_shares_of_the_splits():
    rows = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(80)]
    parts = [part for _, part in queries.assigned(rows)]
    assert {name: parts.count(name) for name in SPLITS} == {
        "stage_1": 40, "stage_2": 20, "rl": 10, "eval": 10,
    }  # fmt: skip


@given(st.lists(st.integers(0, 20), max_size=40), st.sampled_from([None, "train", "eval"]))
def test_a_problem_has_one_split_whatever_the_file(problems, said):
    rows = [{"messages": [{"role": "user", "content": str(i)}], "split": said} for i in problems]
    dealt = {(queries.problem(row), part) for row, part in queries.assigned(rows)}
    assert len(dealt) == len(set(problems))
    assert said is None or all((part == "eval") == (said == "eval") for _, part in dealt)


def test_a_file_too_small_for_a_split_is_one_sentence(config):
    wrote(config, ROWS[:20])
    told = r"^\S+mine.jsonl has \d+ rows for rl and 21 are asked for; lower step_srpo.candidates "
    with pytest.raises(UserError, match=told):
        queries.load(config, 21, 0, "rl")


def test_a_problem_under_two_splits_is_named_by_its_row(config):
    wrote(config, [ROWS[0] | {"split": "train"}, ROWS[1], ROWS[0] | {"split": "eval"}])
    with pytest.raises(UserError, match="line 3: repeats the problem of line 1 under another"):
        queries.load(config, 1, 0, "eval")


def test_a_row_of_another_form_is_named(config):
    wrote(config, [ROWS[0], ROWS[1] | {"split": "test"}])
    with pytest.raises(UserError, match="line 2: split is .test., but should be .train. or .eval."):
        queries.load(config, 1, 0, "eval")
    wrote(config, [ROWS[0], {k: v for k, v in ROWS[1].items() if k != "verifier"}])
    with pytest.raises(UserError, match="line 2: lacks verifier"):
        queries.load(config, 1, 0, "eval")


def test_a_verifier_of_your_own_is_found_by_its_name(config):
    config = lab.load_profile("nano", {"model.queries": config.model.queries})
    config.rewards.mine = "verifiers/mine.py"
    wrote(config, [ROWS[0] | {"verifier": "mine", "split": "eval"}])
    [row] = queries.load(config, 1, 0, "eval")
    assert row["verifier"] == str(stages.root() / "verifiers/mine.py")


def test_a_verifiers_path_counts_from_the_project_folder(config, project, monkeypatch):
    """A kernel starts in notebooks/, where no `verifiers/mine.py` is."""
    (project / "verifiers").mkdir()
    (project / "verifiers/mine.py").write_text(
        "from katlab.rewards import Verdict\n\n\n"
        "def verify(answer, reference):\n    return Verdict(answer == reference, 'read')\n"
    )
    monkeypatch.chdir(project / "notebooks")
    wrote(config, [ROWS[0] | {"verifier": "verifiers/mine.py", "split": "eval", "reference": "7"}])
    [row] = queries.load(config, 1, 0, "eval")
    assert rewards.grade([(row["verifier"], "7", row["reference"])])[0].correct is True


def test_the_nano_worlds_splits_never_share_a_problem():
    texts = {split: {row["problem"] for row in world.queries(400, 1, split)} for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or texts[one].isdisjoint(texts[other]), (one, other)
    assert all("train" in world.splits_of(row["problem"]) for row in world.queries(60, 1, "rl"))


def test_a_wish_goes_to_the_last_turn_only():
    row = next(row for row in ROWS if row["category"] == "multi_turn")
    wished = queries.with_wish(row, "Answer at once.")
    assert wished["messages"][:-1] == row["messages"][:-1]
    assert wished["messages"][-1]["content"] == row["messages"][-1]["content"] + " Answer at once."


def test_what_05_looks_at_and_what_06_reports_share_no_problem():
    config = lab.load_profile("nano")
    seen = queries.load(config, config.step_srpo.eval_prompts, 0, "validation")
    test = queries.load(config, config.evaluation.prompts, 0, "test")
    problems = [{queries.kin(config, row) for row in rows} for rows in (seen, test)]
    assert len(problems[0] & problems[1]) == 0
    assert len(seen) == config.step_srpo.eval_prompts and len(test) == config.evaluation.prompts
    assert {row["id"] for row in seen}.isdisjoint(row["id"] for row in test)
    assert {row["difficulty"] for row in seen} == {row["difficulty"] for row in test}
    assert all("eval" in world.splits_of(row["problem"]) for row in [*seen, *test])


def test_a_problem_is_the_same_under_another_name():
    config, dials = lab.load_profile("nano"), {}
    for row in world.queries(6000, 1, "train", difficulties=(1,)):
        if row["category"] == "tool_use":
            dials.setdefault(queries.kin(config, row), set()).add(row["tools"][0]["name"])
    assert max(map(len, dials.values())) == 3  # heat, light and fan turned alike


def test_a_files_eval_problems_are_parted_too(config):
    wrote(config, ROWS)
    parts = queries.of(config)
    problems = {
        split: {queries.kin(config, row) for row in parts[split]}
        for split in ("eval", "validation", "test")
    }
    assert problems["validation"].isdisjoint(problems["test"])
    assert problems["validation"] | problems["test"] == problems["eval"]
    assert 0 < len(problems["validation"]) < len(problems["test"])
