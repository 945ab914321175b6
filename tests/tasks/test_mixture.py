"""Sums of sources: their shares, splits that share no problem, what `katlab check` says."""

import json
import math
import shlex
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katlab import UserError, cli, lab
from katlab.lab import fingerprint
from katlab.lab.rows import write_jsonl
from katlab.tasks import checks, mixture, procedural, queries
from katlab.tasks.nano import world

SPLITS = ("stage_1", "stage_2", "rl", "validation", "test")


def words(n: int, start: int = 0) -> list[dict]:
    return [{"question": f"{i} pears and one?", "answer": f"#### {i + 1}"}
            for i in range(start, start + n)]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A map with 80 train and 20 test rows, one with 10 test rows alone, 40 rows in a file."""
    for name, rows in (("train", words(80)), ("test", words(20, 100)), ("last", words(10, 200))):
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    paths = f'train = "{tmp_path}/train.jsonl"\ntest = "{tmp_path}/test.jsonl"\n'
    (tmp_path / "pears.toml").write_text(f'extends = "gsm8k"\n{paths}')
    (tmp_path / "last.toml").write_text(f'extends = "gsm8k"\ntest = "{tmp_path}/last.jsonl"\n')
    row = {"category": "math", "difficulty": 2, "verifier": "math", "reference": "1"}
    asked = [[{"role": "user", "content": f"Own question {i}?"}] for i in range(40)]
    own = [row | {"id": str(i), "messages": messages} for i, messages in enumerate(asked)]
    write_jsonl(tmp_path / "own.jsonl", own)
    return tmp_path


def of(text: str, profile: str = "nano"):
    return lab.load_profile(profile, {"model.queries": text})


def test_a_sum_is_read_with_and_without_shares():
    read = mixture.sources("procedural:gcd,lcm:3 + hub:gsm8k:1")
    assert read == [("procedural", "gcd,lcm", 0.75), ("hub", "gsm8k", 0.25)]
    assert [str(source) for source in read] == ["procedural:gcd,lcm", "hub:gsm8k"]
    assert mixture.sources("procedural + a/b.jsonl") == [
        ("procedural", "", 0.5), ("file", "a/b.jsonl", 0.5)
    ]  # fmt: skip
    assert mixture.sources("procedural:0.6") == [("procedural", "", 1.0)]


def test_nano_and_a_file_are_no_sum(tmp_path):
    assert mixture.sources("nano") == mixture.sources("data_samples/queries.jsonl") == []
    assert mixture.sources("procedures.jsonl") == mixture.sources("none.jsonl") == []
    (tmp_path / "a + b.jsonl").write_text("{}")
    assert mixture.sources(str(tmp_path / "a + b.jsonl")) == []


@pytest.mark.parametrize(
    "text, told",
    [
        ("procedural:0.5 + hub:gsm8k", "give a share to every source or to none"),
        ("procedural:0.5+hub:gsm8k:0.5", "write a blank on both sides of each +"),
        ("procedural:0 + hub:gsm8k:1", "a share is above 0"),
        ("procedural:0.5 + procedural:0.5", "procedural stands there twice"),
        (
            "procedural + nano",
            "names 'nano', which is no source; write procedural, procedural:TASK",
        ),
        ("hub: + procedural", "names 'hub:', which is no source"),
    ],
)
def test_what_is_no_sum_is_one_sentence(text, told):
    with pytest.raises(UserError, match=told):
        mixture.sources(text)


def test_rows_are_apportioned_whole():
    assert mixture.apportion(10, [0.6, 0.3, 0.1]) == [6, 3, 1]
    assert mixture.apportion(10, [1, 1, 1]) == [4, 3, 3]
    assert mixture.apportion(1, [0.4, 0.6]) == [0, 1]


@given(
    st.integers(0, 500),
    st.lists(st.sampled_from([0.1, 0.25, 0.6, 1.0, 3.0]), min_size=1, max_size=5),
)
def test_an_apportionment_is_of_all_rows_and_within_one_of_its_share(n, shares):
    counts = mixture.apportion(n, shares)
    assert sum(counts) == n
    assert all(abs(c - n * s / sum(shares)) < 1 for c, s in zip(counts, shares, strict=True))


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from([0.1, 0.5, 2.0])), min_size=1, max_size=4
    )
)
def test_the_most_that_can_be_had_fits_as_does_all_that_is_less(pairs):
    rooms, shares = [room for room, _ in pairs], [share for _, share in pairs]
    n = mixture.most(rooms, shares)
    for fewer in range(n + 1):
        counts = mixture.apportion(fewer, shares)
        assert all(count <= room for count, room in zip(counts, rooms, strict=True))
    one_more_of_each = math.ceil(sum(shares) / min(shares)) + 1
    more = mixture.apportion(n + one_more_of_each, shares)
    assert any(count > room for count, room in zip(more, rooms, strict=True))


def test_the_most_of_what_has_no_end():
    assert mixture.most([mixture.ENDLESS, 30], [0.5, 0.5]) == 60
    assert mixture.most([mixture.ENDLESS], [1.0]) == mixture.ENDLESS
    assert mixture.most([], []) == 0


def test_each_source_gives_its_share_and_one_without_rows_leaves_it(folder):
    text = f"procedural:0.5 + hub:{folder}/pears.toml:0.3 + hub:{folder}/last.toml:0.2"
    config = of(text)
    assert Counter(r["set"] for r in queries.load(config, 10, 0, "test")) == {
        "procedural": 5, "pears": 3, "last": 2,
    }  # fmt: skip
    assert Counter(r["set"] for r in queries.load(config, 8, 0, "rl")) == {
        "procedural": 5, "pears": 3,
    }  # fmt: skip
    assert queries.load(config, 8, 0, "rl") == queries.load(config, 8, 0, "rl")
    assert queries.load(config, 8, 0, "rl") != queries.load(config, 8, 1, "rl")


def test_splits_of_a_sum_share_no_problem(folder):
    """Also where two sources hold the same question: here a map and its train file alone."""
    alone = {"data": f"{folder}/train.jsonl", "prompt": "{question}", "answer": "answer"}
    alone |= {"read": "hashes", "category": "math"}
    (folder / "alone.json").write_text(json.dumps(alone))
    text = f"procedural + hub:{folder}/pears.toml + hub:{folder}/alone.json + {folder}/own.jsonl"
    config = of(text)
    seen: dict[str, str] = {}
    for split, found in queries.pools(config).items():
        for row in [row for _, pool in found for row in pool or []]:
            home = "validation" if split == "eval" else split
            assert seen.setdefault(queries.problem(row), home) == home
    assert Counter(seen.values()) == {
        "stage_1": 60, "stage_2": 30, "rl": 15, "validation": 12, "test": 23
    }  # fmt: skip
    ids = [row["id"] for split in SPLITS for row in queries.load(config, 8, 0, split)]
    assert len(set(ids)) == 40


def test_the_test_rows_of_a_set_are_for_stage_06_alone(folder):
    pools = queries.pools(of(f"hub:{folder}/pears.toml"))
    asked = {split: {r["messages"][0]["content"] for r in pools[split][0][1]} for split in pools}
    assert asked["test"] == {row["question"] for row in words(20, 100)}
    assert asked["eval"] == asked["validation"] and len(asked["eval"]) == 10
    assert asked["eval"] < {row["question"] for row in words(80)}


def test_all_and_a_share_are_of_what_the_shares_allow(folder):
    config = of(f"procedural:0.5 + hub:{folder}/pears.toml:0.5")
    assert queries.room(config)["rl"] == 20 == len(queries.load(config, "all", 0, "rl"))
    assert queries.number(config, 0.5, "test") == 20
    with pytest.raises(UserError, match="procedural has no end of queries to take all of"):
        queries.load(of("procedural"), "all", 0, "rl")


def test_too_few_rows_and_none_are_one_sentence(folder):
    told = (
        r"pears.toml has 10 rows for rl, and its share of 40 is 20; lower step_srpo.candidates or"
    )
    with pytest.raises(UserError, match=told):
        queries.load(of(f"procedural + hub:{folder}/pears.toml"), 40, 0, "rl")
    with pytest.raises(UserError, match="has no rows for rl; add a source that has"):
        queries.load(of(f"hub:{folder}/last.toml"), 1, 0, "rl")


def test_intervals_are_by_operands_of_an_exercise_and_by_the_text_of_others(folder):
    config = of(f"procedural:gcd + hub:{folder}/pears.toml")
    rows = queries.load(config, 20, 0, "rl")
    assert {row["task"] for row in rows if "task" in row} == {"gcd"}
    for row in rows:
        own = queries.kin(config, row) == row.get("problem")
        assert own == (row["set"] == "procedural")


def test_the_nano_world_is_no_mixture(monkeypatch):
    monkeypatch.setattr(procedural, "queries", None)
    config = lab.load_profile("nano")
    assert queries.load(config, 40, 3, "rl") == world.queries(40, 3, "rl")
    assert queries.load(config, 300, 3, "test") == world.queries(300, 3, "test")


def test_the_check_names_every_count_and_what_fits(folder, capsys):
    text = f"procedural:0.5 + hub:{folder}/pears.toml:0.5"
    told = checks.too_small("proxy-1.5b", {"model.queries": text})
    assert told[0] == (
        f"dual_regime_data.queries asks for 20000 rows and {text} has 80 for it; "
        "set dual_regime_data.queries=80."
    )
    assert cli.main(["check", text, "--profile", "proxy-1.5b"]) == 1
    shown = capsys.readouterr().out
    assert "any" in shown and "by these shares" in shown and "What fits this sum" in shown
    pasted = shlex.split(shown[shown.index("katlab run") :].replace("\\\n", " "))
    assert f"model.queries={text}" in pasted
    again = [
        part
        for pair in pasted
        if "queries=proc" not in pair and "=" in pair
        for part in ("-o", pair)
    ]
    assert cli.main(["check", text, "--profile", "proxy-1.5b", *again]) == 0
    assert "The sum fills every count" in capsys.readouterr().out
    assert cli.main(["check", "procedural"]) == 0


def test_the_check_of_exercises_alone():
    procedural_only = {"model.queries": "procedural"}
    assert checks.too_small("proxy-1.5b", procedural_only) == []
    assert checks.too_small("proxy-1.5b", procedural_only | {"step_srpo.candidates": 0.5}) == [
        "step_srpo.candidates = 0.5 is a share, and procedural has no end of queries; give a "
        "number."
    ]
    [told] = checks.too_small("nano", procedural_only)
    assert told.startswith("nano's models read the nano world's own wording only")
    with pytest.raises(UserError, match="no procedural task 'gdc'; did you mean 'gcd'"):
        checks.too_small("proxy-1.5b", {"model.queries": "procedural:gdc"})


def test_what_the_sources_of_a_sum_read_belongs_to_a_stages_fingerprint(folder):
    values = {"profile": "nano", "seed": 0}
    values["overrides"] = {"model.queries": f"procedural:0.5 + hub:{folder}/pears.toml:0.5"}
    before = fingerprint.work("02_dual_regime_data", values, {})
    write_jsonl(folder / "test.jsonl", words(21, 100))
    after = fingerprint.work("02_dual_regime_data", values, {})
    (folder / "pears.toml").write_text((folder / "pears.toml").read_text() + "difficulty = 5\n")
    assert len({before, after, fingerprint.work("02_dual_regime_data", values, {})}) == 3
