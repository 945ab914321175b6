"""The rollout browser: the page's rows are the file's, hostile texts stay texts, filters filter."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from katlab.lab import browser, report, write_jsonl
from katlab.lab.runs import StageRun

HOSTILE = "</script><script>document.title='taken'</script><!-- <script> \u2028 {{ 7 * 7 }} &amp;"
COLUMNS = browser.Columns(
    parts=("judge", "answer"),
    facets={"system": "system", "mode": "decision", "level": "difficulty"},
    numbers={"reward": "reward"},
    shares={"think on": ("mode", "on")},
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def row(name: str, **given: object) -> dict:
    """One reply; what a test does not give is the same everywhere."""
    same = {"id": name, "sample": 0, "system": "b", "arm": "auto", "mode": "off", "level": 1}
    same |= {"correct": True, "reason": "equal", "tokens": 3, "judge": "j", "judge_tokens": 1}
    return same | {"answer": "a", "answer_tokens": 2, "problem": None, "completion": "ja"} | given


ROWS = [
    row("one", step=0, mode="on", correct=False, reward=float("nan"), answer=HOSTILE),
    row("one", step=1, correct=None, tokens=9, problem="unclosed", completion="<broken>"),
    row("two", step=2, level=2, answer="Nine", judge=None, judge_tokens=0),
]
PAIRED = [
    row("three", system="a", mode="on"),
    row("three", correct=False, level=2),
    row("four", system="a"),
    row("four"),
    row("five", system="a"),  # only one of the two was asked
    row("three", system="c"),
]


def query(name: str, text: str, expected: object = 1) -> dict:
    return {"id": name, "messages": [{"role": "user", "content": text}], "reference": expected}


@pytest.fixture
def run(tmp_path) -> Path:
    """A run whose stages 05 and 06 offer rows, 06 before and after."""
    five = StageRun.create(tmp_path, "r", "05_step_srpo")
    write_jsonl(five.dir / "rollouts.jsonl", ROWS)
    write_jsonl(five.dir / "q.jsonl", [query("one", HOSTILE), query("two", "Add"), query("x", "")])
    flags = {"odd": [0, 2], "last": [2]}
    browser.offer(five, "rollouts.jsonl", "q.jsonl", COLUMNS, flags, fragment="system=b")
    six = StageRun.create(tmp_path, "r", "06_evaluation")
    write_jsonl(six.dir / "arms.jsonl", PAIRED)
    asked = [query(name, f"What is {name}?") for name in ("three", "four", "five")]
    write_jsonl(six.dir / "q.jsonl", asked)
    browser.offer(six, "arms.jsonl", "q.jsonl", COLUMNS, {"odd": [1]}, pair=("a", "b"))
    return tmp_path / "r"


def data_of(page: str) -> dict:
    """What the page's own script reads: the text of the script tag, as a browser ends it."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(text)


def test_the_pages_rows_equal_the_files(run):
    data = data_of(browser.page(run).read_text())
    written = [*ROWS, *PAIRED]
    assert data["rows"] == len(written)
    for name in ("id", "step", "system", "mode", "level", "correct", "reason", "tokens", "answer"):
        column = data["columns"][name]
        shown = [column["values"][place] for place in column["index"]]
        assert shown == [one.get(name) for one in written], name
    rewards = data["columns"]["reward"]
    assert [rewards["values"][place] for place in rewards["index"]] == [None] * len(written)
    whole = data["columns"]["completion"]  # only where the format is broken
    assert [whole["values"][place] for place in whole["index"]] == [None, "<broken>"] + [None] * 7
    assert data["flags"] == {"odd": [0, 2, 4], "last": [2]}
    assert data["queries"]["one"] == [HOSTILE, "1"] and "x" not in data["queries"]
    assert set(data["queries"]) == {one["id"] for one in written}


def test_true_and_one_are_two_values():
    found = browser.distinct([True, 1, 1.0, None, True])
    assert found["index"] == [0, 1, 2, 3, 0]


def test_hostile_texts_open_no_tag(run):
    page = browser.page(run).read_text()
    assert HOSTILE not in page and "49" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert page.count("<script") == page.count("</script>") == 2
    assert not re.search(r"<(link|iframe|img)\b|@import|url\(|src=|https?://", page)


def test_what_does_not_fit_a_page_loses_its_middle_only(run, monkeypatch):
    assert browser.room([10, 20]) is None
    monkeypatch.setattr(browser, "MOST", 6_000)
    assert browser.room([9_000, 10]) == 5_000
    assert browser.shortened("a" * 3 + "b" * 8, 4) == "aa\n… 7 characters …\nbb"
    monkeypatch.setattr(browser, "MOST", 10)
    page = browser.page(run).read_text()
    assert "more than 200 characters" in page and data_of(page)["rows"] == 9


def test_no_page_where_nothing_is_offered(tmp_path):
    stage = StageRun.create(tmp_path, "r", "01_layer_saturation")
    assert browser.page(tmp_path / "r") is None and browser.link(stage.dir) == ""
    assert "rollouts.html" not in report.index(tmp_path / "r").read_text()


def test_the_index_and_the_stages_lead_to_the_page(run):
    assert 'href="rollouts.html"' in report.index(run).read_text()
    assert (run / "rollouts.html").is_file()
    assert browser.link(run / "05_step_srpo") == "../rollouts.html#system=b"
    assert 'href="../rollouts.html#system=b"' in report._navigation(run / "05_step_srpo")


def opened(page: Path, fragment: str) -> str:
    """The page as Chromium has it after its script."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    address = f"{page.as_uri()}#{fragment}"
    return subprocess.run(
        [*command, address], capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(
    "fragment, shown",
    [
        ("", 9),
        ("q=Add", 1),  # the problem's text, not the reply's
        ("q=tWo", 1),
        ("said=nine", 1),
        ("right=wrong", 2),
        ("right=unscorable", 1),
        ("mode=on&system=b", 1),
        ("level=2", 2),
        ("from=1&to=2", 2),  # rows without a step are in no range
        ("to=1", 2),
        ("flag=odd", 3),
        ("flag=odd&flag=last", 1),
        ("pairs=1", 2),
        ("pairs=1&change=decision", 1),
        ("pairs=1&change=worse", 1),
        ("pairs=1&change=better", 0),
        ("pairs=1&system=c&level=2", 1),  # one side passes; the pair chooses the systems
        ("q=%3C/script%3E", 2),
    ],
)
def test_filters_in_the_address(run, fragment, shown):
    page = opened(browser.page(run), fragment)
    assert f'data-shown="{shown}"' in page and "<title>Rollouts · r</title>" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_an_opened_row_shows_every_part_as_text(run):
    page = opened(browser.page(run), "flag=odd&from=0&open=1")
    (shown,) = re.findall(r'<div id="list">(.*?)</div><?\s*<nav', page, re.S) or [page]
    for part in ("judge · 1 token<", "judge · none", "answer · 2 tokens", "expected", ": equal"):
        assert part in shown
    assert "&lt;/script&gt;&lt;script&gt;" in shown
    assert "2 of 9 replies: 50 % right, 50 % think on, 3.0 tokens on average" in page
