"""`katlab chat` as it is typed."""

import json
from pathlib import Path

import pytest
from conftest import CHECKOUT
from trainers import finished

from katlab import cli
from katlab.lab import load_profile, stages


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a run whose stages 03 and 05 hand on an untrained student."""
    for name in ("notebooks", "pyproject.toml"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    monkeypatch.setenv("KATLAB_ROOT", str(tmp_path))
    for name in ("03_mtp_distillation", "05_step_srpo"):
        finished(stages.outputs(), name)
    return "r"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nobody"], "There is no run 'nobody'"),
        (["r", "--stage", "04"], "04_cold_start of run 'r' is not done"),
        (["r", "--stage", "03", "--once", "x"], "choose 04_cold_start or 05_step_srpo"),
        (["r", "--json"], 'add --once "TEXT"'),
        (["r", "--max-tokens", "-1"], "not negative"),
    ],
)
def test_mistakes_are_one_sentence(run, capsys, options, words):
    assert cli.main(["chat", *options]) == 2
    told = capsys.readouterr()
    assert words in told.err and told.err.count("\n") == 1 and not told.out


def test_one_reply_for_a_script_as_text_and_as_json(run, capsys):
    asked = ["chat", run, "--once", "Compute 3+4.", "--mode", "off", "--max-tokens", "9"]
    assert cli.main(asked) == 0
    text = capsys.readouterr().out
    words = load_profile("tiny").prompts.forced_off
    assert text.startswith(f"judge    {words}\n") and "decision think off (forced)" in text
    assert "\x1b" not in text
    assert cli.main([*asked, "--json"]) == 0
    reply = json.loads(capsys.readouterr().out)
    assert (reply["mode"], reply["forced"], reply["judge"]) == ("off", "off", words)
    assert reply["tokens"]["all"] <= 9 + 15
