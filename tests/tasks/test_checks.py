"""What a profile asks of a query file: all counts that are too high at once, and what fits."""

import pytest
from pydantic import BaseModel

from katlab import UserError, cli, lab
from katlab.lab import profiles, settings
from katlab.lab.rows import write_jsonl
from katlab.tasks import checks, queries
from katlab.tasks.nano import wording, world

SAMPLE = {"model.queries": "data_samples/queries.jsonl"}  # 30 rows each of train and eval
TRAIN = {"stage_1": 18, "stage_2": 8, "rl": 4}  # whole problems, dealt 4 : 2 : 1


def rows_of(n: int, **keys) -> list[dict]:
    return [
        {
            "id": str(i), "category": "math", "difficulty": 1 + i % 5, "verifier": "math",
            "messages": [{"role": "user", "content": f"Compute {i}+1."}], "reference": str(i + 1),
        } | keys
        for i in range(n)
    ]  # fmt: skip


def wrote(tmp_path, rows) -> dict:
    write_jsonl(tmp_path / "mine.jsonl", rows)
    return {"model.queries": str(tmp_path / "mine.jsonl")}


@pytest.mark.parametrize(
    "value, there, rows",
    [(5, 60, 5), (80, 60, 80), ("all", 60, 60), (0.5, 60, 30), (1.0, 60, 60), (0.01, 60, 1)],
)
def test_a_count_is_a_number_a_share_or_all(value, there, rows):
    assert settings.count(value, there) == rows


@pytest.mark.parametrize("value", [0, -3, 0.0, 1.5, "half", True])
def test_what_is_no_count_is_one_sentence(value):
    with pytest.raises(UserError, match="'cold_start.queries' takes a whole number above 0"):
        lab.load_profile("nano", {"cold_start.queries": value})


def test_a_number_may_stand_where_the_profile_says_all(tmp_path):
    """The command line types a value by the profile's own, which is text here."""
    own = tmp_path / "own.toml"
    own.write_text('extends = "nano"\n[cold_start]\nqueries = "all"\n')
    assert lab.load_profile(str(own), {"cold_start.queries": "20"}).cold_start.queries == 20
    assert lab.load_profile(str(own), {"cold_start.queries": "0.5"}).cold_start.queries == 0.5


def counts_in(model: type[BaseModel], where: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += counts_in(field.annotation, f"{where}{name}.")
        elif settings.allowed(field).startswith("a whole number above 0, a number above 0"):
            found.append(where + name)
    return found


def test_every_count_of_the_profile_is_checked():
    known = {name for names in queries.COUNTS.values() for name in names} | {checks.HELD_OUT}
    assert set(counts_in(profiles.schema())) == known


def test_every_setting_that_is_too_high_is_named_at_once_with_what_fits():
    told = checks.too_small("proxy-1.5b", SAMPLE)
    assert told[0] == (
        "dual_regime_data.queries asks for 20000 rows and data_samples/queries.jsonl has 18 for "
        "it; set dual_regime_data.queries=18."
    )
    named = [sentence.split()[0] for sentence in told]
    assert named == [name for names in queries.COUNTS.values() for name in names] + [
        checks.HELD_OUT
    ]


def test_the_shipped_gpu_profile_is_too_large_for_its_sample_file():
    assert len(checks.too_small("proxy-1.5b")) == 9


def test_the_values_that_fit_do_fit():
    config = lab.load_profile("proxy-1.5b", SAMPLE)
    rows = queries.of(config)
    assert {split: len(rows[split]) for split in TRAIN} == TRAIN and len(rows["eval"]) == 30
    fits = {lack.setting: lack.fits for lack in checks.shortages(config, queries.room(config))}
    assert checks.too_small("proxy-1.5b", SAMPLE | fits) == []
    one_more = fits | {"cold_start.queries": fits["cold_start.queries"] + 1}
    assert [s.split()[0] for s in checks.too_small("proxy-1.5b", SAMPLE | one_more)] == [
        "cold_start.queries"
    ]


def test_shares_fit_any_file_and_are_taken_of_the_split():
    names = [name for names in queries.COUNTS.values() for name in names]
    shares = dict.fromkeys([*names, checks.HELD_OUT], 0.5)
    assert checks.too_small("nano", SAMPLE | shares) == []
    config = lab.load_profile("nano", SAMPLE | shares)
    assert len(queries.load(config, config.cold_start.queries, 0, "stage_2")) == 4
    assert queries.number(config, config.evaluation.prompts, "eval") == 15
    assert len(queries.load(config, "all", 0, "rl")) == TRAIN["rl"]


def test_only_the_stages_that_run_are_asked():
    assert checks.too_small("proxy-1.5b", SAMPLE, ["layer_saturation", "scaling_plan"]) == []
    [told] = checks.too_small("proxy-1.5b", SAMPLE, ["evaluation"])
    assert told.startswith("evaluation.prompts asks for 300 rows")


def test_a_split_without_rows_has_no_value_that_fits(tmp_path):
    file = wrote(tmp_path, rows_of(30, split="eval"))
    told = checks.too_small("nano", file | {"step_srpo.candidates": "all"})
    assert any(s.startswith("step_srpo.candidates asks for all rows") for s in told)
    assert sum(s.endswith("mine.jsonl has 0 for it; give more rows.") for s in told) == 3


def test_a_share_of_the_nano_world_is_one_sentence_before_and_in_a_run():
    told = checks.too_small("nano", {"step_srpo.candidates": 0.5})
    assert told == [
        "step_srpo.candidates = 0.5 is a share, and the nano world has no end of queries; give a "
        "number."
    ]
    with pytest.raises(UserError, match="The nano world has no end of queries to take all of"):
        queries.load(lab.load_profile("nano"), "all", 0, "rl")
    assert checks.too_small("nano") == checks.too_small("tiny") == []


def test_nanos_wording_is_the_nano_worlds_and_no_other():
    rows = world.queries(600, 5, "train") + world.queries(60, 5, "eval")
    assert [row for row in rows if not wording.is_nanos(row)] == []
    english = ["What is 4+9?", "Compute 4+9. Explain.", "compute 4+9.", ""]
    asks = [{"messages": [{"role": "user", "content": text}]} for text in english]
    assert not any(map(wording.is_nanos, asks))


def test_english_is_not_for_nano_and_the_profiles_that_read_it_are_named(tmp_path):
    english = rows_of(60, messages=[{"role": "user", "content": "Tom had 3 pears, ate 1. Left?"}])
    english = [row | {"messages": [{"role": "user", "content": f"{i} pears?"}]} for i, row in
               enumerate(english)]  # fmt: skip
    file = wrote(tmp_path, english)
    assert checks.too_small("nano", file)[0] == (
        "nano's models read the nano world's own wording only ('Compute 13+14.'), not '0 pears?'; "
        "for queries in English take a profile with real models, such as proxy-1.5b or "
        "real-0.5b or target-40b."
    )
    assert "wording" not in "".join(checks.too_small("proxy-1.5b", file))
    assert "wording" not in "".join(checks.too_small("nano", wrote(tmp_path, rows_of(60))))


def test_check_prints_the_settings_and_a_command_to_paste(capsys):
    assert cli.main(["check", "data_samples/queries.jsonl"]) == 0  # the form alone
    shown = capsys.readouterr().out
    assert "asks for" not in shown and "least" not in shown and "Add --profile P" in shown
    assert cli.main(["check", "data_samples/queries.jsonl", "--profile", "nano"]) == 1
    shown = capsys.readouterr().out
    assert "As it is, nano takes 16,000 rows." in shown
    pasted = shown[shown.index("katlab run") :].replace("\\\n", " ").split()
    assert pasted[:5] == ["katlab", "run", "--run", "mine", "--profile"]
    given = [word for word in pasted if "=" in word and not word.startswith("model.queries")]
    again = [word for pair in given for word in ("-o", pair)]
    assert cli.main(["check", "data_samples/queries.jsonl", "--profile", "nano", *again]) == 0
    assert "fills every count" in capsys.readouterr().out


def test_a_file_below_the_least_is_told(tmp_path, capsys):
    assert checks.check(wrote(tmp_path, rows_of(29))["model.queries"]) == 0
    assert "Problems: 29; 30 are the least" in capsys.readouterr().out


def test_where_nothing_fits_no_command_is_printed(tmp_path, capsys):
    assert checks.check(wrote(tmp_path, rows_of(1))["model.queries"], "nano") == 1
    shown = capsys.readouterr().out
    assert "no setting fits so few" in shown and "katlab run" not in shown


def test_a_file_with_one_kind_of_difficulty_is_told(tmp_path, capsys):
    file = wrote(tmp_path, rows_of(40, difficulty=2))
    checks.check(file["model.queries"], "nano")
    assert "None of stage 02's 20 queries have difficulty 4 or more" in capsys.readouterr().out
