"""The worked example of one's own data: its recipe, its file, its profile, and a run of 30 rows."""

import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib

import pytest
from conftest import CHECKOUT

from katlab import cli, lab, rewards
from katlab.lab.rows import write_jsonl
from katlab.tasks import checks, files, hub, mixture, procedural, queries
from katlab.tasks.nano import wording

SAMPLES = CHECKOUT / "data_samples"
PROFILE = str(SAMPLES / "own_data.toml")
ROWS = runpy.run_path(str(SAMPLES / "own_data.py"))["rows"]()
DOCS = (CHECKOUT / "docs" / "own-data.md").read_text()
BLOCKS = re.findall(r"```toml\n(.*?)```", DOCS, re.S)


def test_the_file_is_what_the_recipe_writes():
    done = subprocess.run([sys.executable, SAMPLES / "own_data.py"], capture_output=True, text=True)
    assert done.stdout == (SAMPLES / "own_data.jsonl").read_text()
    assert len(ROWS) == len({files.problem(row) for row in ROWS}) == 120


def test_nano_reads_the_example_and_the_profile_fits_it():
    assert all(map(wording.is_nanos, ROWS))
    assert checks.too_small(PROFILE) == []


@pytest.mark.parametrize("n", [30, 120, 300])
def test_rows_are_dealt_as_the_page_says(n):
    """The table of docs/own-data.md, one row per part."""
    rows = [{"messages": [{"role": "user", "content": str(i)}]} for i in range(n)]
    parts = [part for _, part in queries.assigned(rows)]
    table = re.findall(r"^\| (?:stage|held).*?/8 .*$", DOCS, re.M)
    said = [int(line.split("|")[4 + [30, 120, 300].index(n)]) for line in table]
    assert said == [parts.count(part) for part in queries.SHARES]


def test_the_pages_profiles_are_profiles(tmp_path):
    """Each is loaded as it stands; the one for a GPU fits the example's rows."""
    blocks = [block for block in BLOCKS if "[" in block]
    assert len(blocks) == 3
    for block in blocks:
        (tmp_path / "mine.toml").write_text(block)
        lab.load_profile(str(tmp_path / "mine.toml"))
    assert len(mixture.sources(tomllib.loads(blocks[1])["model"]["queries"])) == 4
    assert tomllib.loads(blocks[2])["extends"] == "proxy-1.5b"
    given = {"model.queries": "data_samples/own_data.jsonl"}
    assert checks.too_small(str(tmp_path / "mine.toml"), given) == []


def test_the_pages_maps_are_maps(tmp_path):
    maps = [block for block in BLOCKS if "[" not in block]
    for block in maps:
        (tmp_path / "mine.toml").write_text(block)
        assert hub.load_map(str(tmp_path / "mine.toml")).read == "hashes"
    assert [tomllib.loads(block).get("extends") for block in maps] == [None, "gsm8k"]
    assert all(f"`{name}`" in DOCS for name in procedural.TASKS)


def test_the_page_quotes_the_check(tmp_path, capsys):
    odd = [row | change for row, change in zip(ROWS, [{}, {}, {"category": "maths"},
           {"difficulty": 9}, {}, {}, {"verifier": "maths"}], strict=False)]  # fmt: skip
    write_jsonl(tmp_path / "mine.jsonl", odd)
    assert checks.check(tmp_path / "mine.jsonl", "nano") == 1
    shown = capsys.readouterr().out
    quoted = re.findall(r"^line \d: .*$", DOCS, re.M)
    assert len(quoted) == 3
    for line in quoted:
        assert all(piece in shown for piece in line.split(", …, ")), line


def test_the_pages_commands_are_commands():
    lines = re.findall(r"^(?:\$ )?(katlab [^\\\n]*)$", DOCS, re.M)
    assert len(lines) == 9
    for line in lines:
        cli.parser_of_all().parse_args(shlex.split(line, comments=True)[1:])


@pytest.mark.slow
def test_thirty_rows_go_through_every_stage(tmp_path):
    """The least that the pages name, with the counts of the example's profile at tiny's size."""
    for name in ("notebooks", "data_samples", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    least = ROWS[::4]
    assert len(least) == checks.LEAST
    write_jsonl(tmp_path / "mine.jsonl", least)
    own = (SAMPLES / "own_data.toml").read_text().replace('extends = "nano"', 'extends = "tiny"')
    (tmp_path / "mine.toml").write_text(own.replace("data_samples/own_data.jsonl", "mine.jsonl"))
    command = [sys.executable, "-m", "katlab.cli", "run", "--run", "mine", "--profile", "mine.toml"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"KATLAB_ROOT": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "outputs/mine").glob("*/run.json")]
    assert len(records) == 10 and {record["state"] for record in records} == {"done"}


def test_the_references_of_the_readme_are_taken():
    """Each grades some answer right, so none is of a form that its verifier refuses."""
    right = {
        "code": "lambda x: x + 3", "choice": "B", "keywords": "19 coins", "multi_turn": "14",
        "tool_call": '<tool_call>\n{"name": "set_fan", "arguments": {"level": 28}}\n</tool_call>',
    }  # fmt: skip
    fan = '[{"name": "set_fan", "parameters": {"type": "object"}}]'
    told = (SAMPLES / "README.md").read_text().replace('"tools": […]', f'"tools": {fan}')
    told = told.replace("[…]", '[{"role": "user", "content": "Add 2."}]')
    shown = dict(re.findall(r"^\| (\w+) \| `(\{.*?\})`", told, re.M))
    assert shown.keys() == right.keys()
    cases = [(kind, right[kind], json.loads(text)) for kind, text in shown.items()]
    assert [verdict.correct for verdict in rewards.grade(cases)] == [True] * len(cases)
