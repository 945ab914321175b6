"""What a run prints: a live line on a terminal, plain lines elsewhere, tables that fit."""

import io
import re
import sys

import pytest

from katlab.lab import Claim
from katlab.lab.console import Console, progress, table
from katlab.lab.runs import StageRun

CLAIM = "Accuracy is no lower than the cold start's, over 300 prompts and 3 seeds"
ROWS = [("05", CLAIM, "improves", "-0.3 [-3.7, +2.7]", "held")]
HEAD = ("", "claim", "reported", "measured", "verdict")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns as stdout."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    return sys.stdout


def test_a_table_wraps_at_the_width_of_the_terminal(monkeypatch):
    terminal(monkeypatch)
    lines = re.sub(r"\x1b\[\d+m", "", table(HEAD, ROWS)).splitlines()
    assert max(map(len, lines)) <= 60 and len(lines) > 3
    claim = slice(lines[0].index("claim"), lines[0].index("reported"))
    assert " ".join(line[claim] for line in lines[2:]).split() == CLAIM.split()
    assert "\x1b[32mheld" in table(HEAD, ROWS)


def test_a_table_elsewhere_is_plain_and_as_wide_as_columns_says(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "200")
    head, rule, row = table(HEAD, ROWS).splitlines()
    assert re.split(r"  +", row) == list(ROWS[0])
    assert head.split() == list(HEAD[1:]) and set(rule) == {"─"}


def test_square_brackets_in_a_cell_are_no_markup(monkeypatch):
    terminal(monkeypatch)
    assert "[bold] [1, 2]" in table(("a",), [("[bold] [1, 2]",)])


def test_a_terminal_has_a_live_line_that_leaves_nothing_behind(tmp_path, monkeypatch):
    shown = terminal(monkeypatch)
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    console = Console(tmp_path / "r", [stage.name])
    with console.watching(stage.dir):
        stage.bar(30, "training")
    stage.finish()
    console.done(stage.dir)
    said = re.sub(r"\x1b\[\d+m", "", shown.getvalue())  # without colours
    assert "▸ 05_step_srpo  0 s · training · step 0/30" in said
    assert said.index("▸") < said.rindex("\x1b[2K") < said.index("✓ 05_step_srpo")


def test_elsewhere_nothing_is_rewritten(tmp_path, capsys):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    console = Console(tmp_path / "r", [stage.name])
    with console.watching(stage.dir):
        stage.bar(30, "training")
    rows = [
        ("It falls.", True, "report"),
        ("It rises.", False, "check"),
        ("Aside.", None, "target"),
    ]
    claims = [Claim(name, 1, 0, held, kind) for name, held, kind in rows]
    stage.verdict([*claims, Claim("Rows.", 1, 0, None, "fact")])
    stage.record(reward=0.5)
    stage.finish()
    console.done(stage.dir)
    console.end(tmp_path / "r/index.html")
    lines = capsys.readouterr().out.splitlines()
    assert not any("\x1b" in line or "\r" in line for line in lines)
    assert lines[1].startswith("✓ 05_step_srpo  0 s · 1 of 2 claims held · reward 0.5")
    assert lines[-1] == str(tmp_path / "r/index.html")


def test_progress_before_the_first_step_and_after_the_last(tmp_path):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo")
    assert progress(stage.dir) == "starting"
    stage.bar(30, "training").to(3)
    assert progress(stage.dir).startswith("training · step 0/30")
    stage.finish()
    assert progress(stage.dir) == "finishing"
