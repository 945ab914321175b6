"""The committed review: nano seeds that nothing was chosen on, and the README's table."""

import json

import pytest
from conftest import CHECKOUT

from katlab.lab import profiles
from katlab.review import tables

FOLDER = CHECKOUT / "outputs/reviews/nano"
SYSTEMS = {
    *("base", "distilled", "cold start (own votes)", "final (own votes)", "GRPO", "oracle", "coin"),
    *("cold start (teachers' votes)", "final (teachers' votes)", "always-on", "always-off"),
    *("threshold", "one-feature rule"),
}


@pytest.fixture(scope="module")
def summary() -> dict:
    return json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))


def test_it_reports_the_seeds_of_the_profile_and_none_that_was_tuned_on(summary):
    seeds = profiles.load("nano").seeds
    assert summary["seeds"] == seeds.reported == [0, 1, 2, 3, 4]
    assert summary["tuning_seeds"] == seeds.tuning == [100, 101, 102]
    assert not summary["tuned_on_these"] and not summary["commit"].endswith("-dirty")
    assert summary["twins"] == 0
    assert all(n >= 1000 for n in summary["n_by_seed"].values())


def test_it_has_every_system_and_claims_that_failed(summary):
    assert summary["systems"].keys() >= SYSTEMS
    for name, row in summary["systems"].items():
        for figure in ("accuracy", "tokens"):
            value, low, high = row[figure]
            assert low <= value <= high, (name, figure)
        assert list(row["think_on"]) == ["1", "2", "3", "4", "5"]
    assert {claim["held"] for claim in summary["claims"]} >= {True, False}


def test_the_readme_has_its_table_and_its_failures_as_they_are_printed(summary):
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for line in tables.text(summary).splitlines():
        assert line in readme


def test_it_is_small_and_speaks_of_no_machine(summary):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    for path in files:
        if path.suffix in (".html", ".json", ".md"):
            assert "/tmp/" not in path.read_text(encoding="utf-8"), path
