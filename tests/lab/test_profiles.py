"""Profiles: inheritance, overrides, validation by the stages' own models, the shipped files."""

import shutil
from pathlib import Path

import pytest

from katlab import UserError, cli
from katlab.lab import profiles


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of profiles that holds nano alone."""
    shutil.copy(profiles.FOLDER / "nano.toml", tmp_path)
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    return tmp_path


def test_extends_merges_key_by_key(folder):
    (folder / "small.toml").write_text('extends = "nano"\n[step_srpo]\nsteps = 5\nomega = 1\n')
    (folder / "smaller.toml").write_text('extends = "small"\n[model]\nsample_batch = 7\n')
    profile = profiles.load("smaller")
    assert profile.step_srpo.steps == 5
    assert profile.step_srpo.trainer.epsilon == 0.2
    assert profile.model.sample_batch == 7
    assert profile.step_srpo.omega == 1.0 and type(profile.step_srpo.omega) is float


def test_a_path_that_is_extended_counts_from_its_profile(tmp_path, monkeypatch):
    (tmp_path / "base.toml").write_text('extends = "nano"\n[step_srpo]\nsteps = 5\n')
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert profiles.load(str(tmp_path / "mine.toml")).step_srpo.steps == 5
    assert profiles.load("../mine.toml").step_srpo.steps == 5


def test_a_profile_may_be_a_path_and_open_tables_are_free(folder, tmp_path):
    mine = tmp_path / "elsewhere.toml"
    mine.write_text(
        'extends = "nano"\n[model.architecture]\nrope = "yarn"\n[rewards]\nmine = "mine.py"\n'
        "[step_srpo.trainer]\nmask_truncated_completions = true\n"
    )
    profile = profiles.load(str(mine), {"step_srpo.trainer.scale_rewards": "none"})
    assert profile.model.architecture == {"rope": "yarn"}
    assert profile.rewards.model_extra == {"mine": "mine.py"}
    trainer = {"mask_truncated_completions": True, "scale_rewards": "none"}
    assert profile.step_srpo.trainer.model_extra == trainer


def test_overrides_reach_one_value_and_leave_the_profile_as_it_is():
    profile = profiles.load("nano", {"step_srpo.omega": 1, "step_srpo.steps": 7})
    assert (profile.step_srpo.omega, profile.step_srpo.steps) == (1.0, 7)
    assert profiles.load("nano").step_srpo.steps == 60


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"step_srp.steps": 1}, "there is no 'step_srp'; did you mean 'step_srpo'"),
        ({"step_srpo.step": 1}, "there is no 'step_srpo.step'; did you mean 'steps'"),
        ({"step_srpo.steps": 1.5}, "'step_srpo.steps' takes a whole number above 0, not 1.5"),
        ({"step_srpo.steps": True}, "takes a whole number above 0, not True"),
        ({"step_srpo.steps": -1}, "takes a whole number above 0, not -1"),
        ({"step_srpo.omega": -5}, "takes a number at least 0, not -5"),
        ({"step_srpo.omega": True}, "takes a number at least 0, not True"),
        ({"step_srpo.omega": float("nan")}, "takes a number at least 0, not nan"),
        ({"step_srpo.trainer.learning_rate": float("inf")}, "takes a number above 0, not inf"),
        ({"step_srpo.trainer.use_vllm": 1}, "takes true or false, not 1"),
        ({"step_srpo.trainer.loss_type": "foo"}, "takes 'dapo', .*, not 'foo'"),
        ({"layer_saturation.choice": "list"}, "go together"),
        (
            {"seeds.tuning": [7, 8], "seeds.reported": [8, 9]},
            "share 8; report runs of seeds that no",
        ),
        ({"seeds.reported": [0.5]}, "takes a list, each a whole number, not 0.5"),
        ({"prompts.directive_on": []}, "takes a list that is not empty, each text, not"),
        ({"prompts.directive_on": "Think."}, "takes a list that is not empty, each text, not 'T"),
        ({"prompts.tag_pattern": "("}, "no regular expression"),
        ({"prompts.tag_pattern": "math"}, "needs the groups"),
        ({"prompts.rationale_pattern": "think"}, "one group"),
        ({"prompts.reply_patterns": ["Answer: (.*)"]}, "reply_patterns need the groups"),
        ({"prompts.rationale": "Why?"}, "needs {mode}"),
        ({"rewards.mine": 3}, "'rewards.mine' takes text, not 3"),
        ({"step_srpo": 3}, "needs a section"),
        ({"step_srpo.advantages": "hipp"}, "no estimator 'hipp'; did you mean 'hipo'"),
        ({"model.dtype.deep": 3}, "takes 'float32', 'bfloat16' or 'float16'"),
    ],
)
def test_a_wrong_override_is_one_sentence(overrides, words):
    with pytest.raises(UserError, match=words) as mistake:
        profiles.load("nano", overrides)
    assert "\n" not in str(mistake.value)
    assert str(mistake.value).startswith("Override")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('extends = "nano"\n[step_srpo]\nstepz = 1\n', "did you mean 'steps'"),
        ('extends = "nano"\n[cold_strat]\nsteps = 1\n', "there is no 'cold_strat'"),
        ('extends = "nano"\nmodel = 1\n', "'model' takes a table, not 1"),
        (
            'extends = "nano"\n[cold_start]\nrandom_share = 1.5\n',
            "at least 0 and at most 1, not 1.5",
        ),
        ('extends = "bad"\n', "extends itself"),
        ('extends = "nanoo"\n', "did you mean 'nano'"),
        ('description = "x"\n[model]\nstudent = "x"\n', "leaves out model.gguf_file; set it or"),
        ("[model\n", "not valid TOML"),
        ("description = '\xff'\n", "not valid TOML"),
        ("extends = 3\n", "'extends' takes a profile's name or path, not 3"),
    ],
)
def test_a_wrong_profile_is_one_sentence(folder, text, words):
    (folder / "bad.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=words) as mistake:
        profiles.load("bad", {"evaluation.prompts": 7})
    assert "\n" not in str(mistake.value) and "Override" not in str(mistake.value)


def test_a_value_set_by_hand_is_checked_like_one_that_was_read():
    settings = profiles.load("nano").step_srpo
    settings.omega = 1
    assert type(settings.omega) is float
    with pytest.raises(UserError, match="'omega' takes a number at least 0, not 'much'"):
        settings.omega = "much"
    with pytest.raises(UserError, match="did you mean 'omega'"):
        settings.omgea = 1.0
    assert settings.omega == 1.0


def test_an_unknown_profile_suggests_a_known_one():
    with pytest.raises(UserError, match="did you mean 'nano'"):
        profiles.load("namo")


@pytest.mark.parametrize("name", profiles.names())
def test_shipped_profiles_validate(name):
    assert profiles.load(name).step_srpo.steps > 0


def test_the_promised_profiles_ship():
    promised = {"nano", "tiny", "smol-135m", "real-0.5b", "proxy-1.5b", "target-40b"}
    assert promised <= set(profiles.names())


def test_nanos_prompts_read_what_nano_writes():
    import re

    prompts = profiles.load("nano").prompts
    found = re.fullmatch(prompts.tag_pattern, "math, level 3")
    assert (found["domain"], found["level"]) == ("math", "3")
    forced = prompts.forced_on, prompts.forced_off
    modes = [re.findall(prompts.rationale_pattern, text) for text in forced]
    assert modes == [["on"], ["off"]]
    assert prompts.rationale.format(mode="on") == "Why think on?"


def test_nested_tables_are_shown_under_the_keys_that_overrides_have(capsys):
    assert profiles.flat({"a": 1, "b": {"c": 2, "d": {"e": []}}, "f": {}}) == {
        "a": 1,
        "b.c": 2,
        "b.d.e": [],
        "f": {},
    }
    assert cli.main(["params", "05", "--profile", "nano"]) == 0
    shown = capsys.readouterr().out
    assert "\nstep_srpo.trainer.num_generations        16\n" in shown
    assert max(map(len, shown.splitlines())) <= 100
