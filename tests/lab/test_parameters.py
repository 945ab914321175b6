"""The parameters cell: read as papermill reads it, but strictly."""

from pathlib import Path

import papermill
import pytest
from conftest import PARAMETERS, write_notebook

from katlab import UserError
from katlab.lab import parameters


def cell(tmp_path: Path, text: str) -> Path:
    return write_notebook(tmp_path / "01_x.ipynb", "01_x", parameters=text)


def test_declared_reads_names_defaults_and_help(tmp_path):
    found = parameters.declared(cell(tmp_path, PARAMETERS))
    assert {name: p.default for name, p in found.items()} == {
        "profile": "nano",
        "run": "demo",
        "seed": 0,
        "overrides": {},
        "report_to": "none",
    }
    assert found["profile"].help == "which profile"


def test_papermill_sees_the_same_names(tmp_path):
    path = cell(tmp_path, PARAMETERS)
    assert list(papermill.inspect_notebook(str(path))) == list(parameters.declared(path))


@pytest.mark.parametrize(
    "text", ["x: int = None", "x = 1 + 1", "import os", "x = y = 1", "x: int", "x = (1, 2)", "f(1)"]
)
def test_anything_but_a_plain_literal_is_refused(tmp_path, text):
    with pytest.raises(UserError, match="Line 1 of the parameters cell"):
        parameters.declared(cell(tmp_path, text))


def test_values_are_typed_by_their_defaults(tmp_path):
    known = parameters.declared(cell(tmp_path, "rate: float = 0.5\nseed: int = 0\nnote: str = ''"))
    assert parameters.check({"rate": 1, "seed": 2}, known, "x") == {"rate": 1.0, "seed": 2}
    with pytest.raises(UserError, match="did you mean 'seed'"):
        parameters.check({"sed": 1}, known, "x")
    with pytest.raises(UserError, match="takes a whole number, not '1'"):
        parameters.check({"seed": "1"}, known, "x")
    with pytest.raises(UserError, match="takes a whole number, not True"):
        parameters.check({"seed": True}, known, "x")


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("1e-5", 0.1, 1e-5),  # YAML 1.1 would make this text
        ("3", 0, 3),
        ("true", False, True),
        ("no", False, "no"),  # left as text, so that the type check refuses it
        ("3", "", "3"),
        ("[1, 2]", [], [1, 2]),
        ("a=b", "", "a=b"),
    ],
)
def test_command_line_values_are_toml_or_text(text, default, value):
    assert parameters.literal(text, default) == value
    assert type(parameters.literal(text, default)) is type(value)


def test_a_pair_needs_its_equals_sign():
    assert parameters.split("a = b=c") == ("a", "b=c")
    with pytest.raises(UserError, match="name=value"):
        parameters.split("seed")
