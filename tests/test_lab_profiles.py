"""Profiles: inheritance, validation against nano.toml, overrides, and the shipped files."""

from pathlib import Path

import pytest

from katlab import UserError
from katlab.lab import profiles

NANO = """
note = "schema"
[model]
width = 128
free = {}
[step_srpo]
steps = 100
learning_rate = 1e-4
betas = [0.9]
use_vllm = false
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nano.toml").write_text(NANO)
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    return tmp_path


def test_extends_merges_key_by_key(folder):
    (folder / "small.toml").write_text('extends = "nano"\n[step_srpo]\nsteps = 5\n')
    (folder / "smaller.toml").write_text('extends = "small"\n[model]\nwidth = 64\n')
    profile = profiles.load("smaller")
    assert profile.step_srpo.steps == 5
    assert profile.step_srpo.learning_rate == 1e-4
    assert profile.model.width == 64


def test_a_profile_may_be_a_path_and_an_empty_table_is_free(folder, tmp_path):
    mine = tmp_path / "elsewhere.toml"
    mine.write_text('extends = "nano"\n[model.free]\nrope = "yarn"\n')
    assert profiles.load(str(mine)).model.free.rope == "yarn"


def test_overrides_reach_one_value_and_an_int_serves_a_float(folder):
    profile = profiles.load("nano", {"step_srpo.learning_rate": 1, "step_srpo.steps": 7})
    assert profile.step_srpo.learning_rate == 1.0
    assert type(profile.step_srpo.learning_rate) is float
    assert profile.step_srpo.steps == 7
    assert profiles.load("nano").step_srpo.steps == 100


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"step_srp.steps": 1}, "did you mean 'step_srpo'"),
        ({"step_srpo.step": 1}, "did you mean 'steps'"),
        ({"step_srpo.steps": 1.5}, "takes a whole number"),
        ({"step_srpo.steps": True}, "takes a whole number"),
        ({"step_srpo.use_vllm": 1}, "takes true or false"),
        ({"step_srpo.betas": "0.9"}, "takes a list"),
        ({"step_srpo": 3}, "needs a section"),
        ({"model.width.deep": 3}, "takes a whole number"),
    ],
)
def test_a_wrong_override_is_one_sentence(folder, overrides, words):
    with pytest.raises(UserError, match=words) as mistake:
        profiles.load("nano", overrides)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "nano"\n[step_srpo]\nstepz = 1\n', "did you mean 'steps'"),
        ('extends = "nano"\n[cold_strat]\nsteps = 1\n', "there is no 'cold_strat'"),
        ('extends = "bad"\n', "extends itself"),
        ('extends = "nanoo"\n', "did you mean 'nano'"),
        ("[model]\nwidth = 1\n", "leaves out model.free"),
        ("[model\n", "not valid TOML"),
    ],
)
def test_a_wrong_profile_is_one_sentence(folder, text, words):
    (folder / "bad.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        profiles.load("bad")


def test_an_unknown_profile_suggests_a_known_one(folder):
    with pytest.raises(UserError, match="did you mean 'nano'"):
        profiles.load("namo")


@pytest.mark.parametrize("name", profiles.names())
def test_shipped_profiles_validate(name):
    assert profiles.load(name).step_srpo.steps > 0


def test_the_promised_profiles_ship():
    assert {"nano", "tiny", "smol-135m", "proxy-1.5b", "target-40b"} <= set(profiles.names())


def test_every_number_of_a_section_belongs_to_a_stage_or_is_shared():
    from katlab.lab import stages

    known = {profiles.section(stage.name) for stage in stages.STAGES} | {"model", "lora", "rewards"}
    assert {k for k, v in profiles.table("nano").items() if isinstance(v, dict)} <= known
