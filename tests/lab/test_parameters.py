"""Parameters of a stage: from the package, typed, and put where they take effect."""

import json

import pytest
from conftest import write_notebook

from katlab import UserError
from katlab.lab import parameters, pipeline

COMMON = {"profile": "nano", "run": "demo", "seed": 0, "overrides": {}, "report_to": "none"}


def test_names_and_defaults_come_from_the_package():
    assert {name: p.default for name, p in parameters.of("05_step_srpo").items()} == COMMON
    own = parameters.of("09_compare_runs")
    assert {name: p.default for name, p in own.items()} == COMMON | {"runs": []}
    assert all(p.help for p in own.values())


def test_a_saved_notebook_changes_no_default(project):
    """A notebook saved with profile tiny and run j made later commands run tiny in part."""
    path = project / "notebooks/02_dual_regime_data.ipynb"
    saved = path.read_text().replace('\\"nano\\"', '\\"tiny\\"').replace('\\"demo\\"', '\\"j\\"')
    saved = saved.replace("seed: int = 0", "seed: int = 7")
    assert saved != path.read_text()
    before = pipeline.arguments(pipeline.select(), {})
    path.write_text(saved)
    assert pipeline.arguments(pipeline.select(), {}) == before
    assert before["02_dual_regime_data"] == COMMON


@pytest.mark.parametrize("tags", [[], ["parameters", "parameters"]])
def test_one_cell_is_tagged_or_values_would_be_overruled(project, tags):
    """papermill puts values behind the tagged cell, and without one in front of everything."""
    path = write_notebook(project / "notebooks/02_dual_regime_data.ipynb", "02_dual_regime_data")
    book = json.loads(path.read_text())
    book["cells"][1]["metadata"]["tags"] = tags[:1]
    book["cells"][3]["metadata"]["tags"] = tags[1:]
    path.write_text(json.dumps(book))
    with pytest.raises(UserError, match=f"has {len(tags)} cells tagged 'parameters'"):
        pipeline.arguments(pipeline.select(), {})


def test_values_are_typed_by_their_defaults():
    defaults = {"rate": 0.5, "seed": 0, "note": ""}
    known = {name: parameters.Parameter(default, "") for name, default in defaults.items()}
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
