"""The README's table: every cell from summary.json, what is not held among them."""

import json

import pytest
from conftest import CHECKOUT

from katlab.review import tables

REVIEWS = CHECKOUT / "outputs" / "reviews"
ROW = {
    "accuracy": [0.9, 0.875, 0.925],
    "tokens": [39.04, 37.0, 41.0],
    "think_on": {"1": 0.02, "5": 0.976},
    "judge_agreement": 0.814,
    "auc_oaa": 0.7,
    "leakage": 0.1,
}
HELD = {"stage": "06_evaluation", "claim": "Tokens fall", "measured": "-7 %", "held": True}
MISSED = HELD | {"claim": "a | b", "held": False, "held_in": [0, 4]}
UNJUDGED = HELD | {"claim": "Unjudged", "held": None, "held_in": []}


def made() -> dict:
    """A summary of the schema, small."""
    measured = {"0": "+0.3 points, at least -1.4 (95 %, one-sided); power 52%", "4": "77.3% [70%]"}
    rows = [HELD, MISSED, UNJUDGED]
    return {
        "commit": "0123456789abcdef",
        "seeds": [0, 4],
        "n": 2000,
        "systems": dict.fromkeys([*tables.ROWS, "oracle"], ROW)
        | {"base": ROW | {"judge_agreement": None, "auc_oaa": None}},
        "against_always_on": {
            "accuracy_difference": [-0.018, -0.036],
            "tokens_saved": [0.315, 0.277, 0.355],
            "margin": 0.02,
            "power": 0.62,
        },
        "claims": [{"held_in": [0, 4], "by_seed": measured} | row for row in rows],
    }


def test_eight_rows_by_hand():
    lines = tables.text(made()).splitlines()
    assert lines[0].startswith("Seeds 0, 4, 2,000 prompts in all, commit 01234567; [ ] is")
    assert lines[4] == "| base | 90.0 % [87.5, 92.5] | 39.0 [37.0, 41.0] | 2 → 98 % | – | – |"
    assert lines[5].endswith("| 2 → 98 % | 81 % | 0.700 |")
    assert [line.split(" | ")[0][2:] for line in lines[4:12]] == list(tables.ROWS)
    assert len(tables.ROWS) == 8 and lines[12] == ""


def test_what_is_not_held_stands_in_a_table_of_the_same_kind():
    told = tables.text(made())
    assert "-1.8 points of accuracy, at least -3.6" in told and "31.5 % [27.7, 35.5] of the" in told
    assert "1 of 3 claims are held by the verdict of every seed; the others:" in told
    first = "+0.3 points, at least -1.4 / 77.3%"
    assert f"| 06 | a \\| b | {first} | seeds 0, 4 | ✗ |" in told
    assert f"| 06 | Unjudged | {first} | no seed | not judged |" in told and "Tokens" not in told


def test_a_system_that_a_review_lacks_has_no_row():
    summary = made()
    del summary["systems"]["GRPO"]
    assert "GRPO" not in tables.text(summary) and "always-on" in tables.text(summary)


def shown(page: str, summary: dict) -> bool:
    """Whether a page has the tables of a summary as `katlab review` printed them."""
    return tables.text(summary) in page


@pytest.mark.parametrize("change", [("n", 1999), ("seeds", [0, 5]), ("commit", "fedcba98")])
def test_a_page_that_says_otherwise_is_found(change):
    page = f"# katlab\n\n{tables.text(made())}\n\nMore."
    assert shown(page, made()) and not shown(page, made() | dict([change]))
    other = json.loads(json.dumps(made()))
    other["systems"]["GRPO"]["accuracy"][0] += 0.001
    assert not shown(page, other)


def test_the_pages_show_what_committed_reviews_say():
    """A review of nano stands in the README too; before there is one there is nothing to show."""
    for path in sorted(REVIEWS.glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        pages = [path.with_name("README.md")]
        pages += [CHECKOUT / "README.md"] if path.parent.name == "nano" else []
        for page in pages:
            assert shown(page.read_text(encoding="utf-8"), summary), page
        sizes = [file.stat().st_size for file in path.parent.rglob("*") if file.is_file()]
        assert sum(sizes) <= 8 * 10**6, path.parent
