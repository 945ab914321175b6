"""Runs against the first: which are repeats, means and differences by hand, what is paired."""

import json
import re

import pandas as pd
import pytest

from katlab import UserError, cli, intervals
from katlab.compare_runs import comparison, pooling, side_by_side, variants
from katlab.lab import write_jsonl
from katlab.lab.runs import StageRun


def sample(name: str, correct: bool | None, tokens: int = 10, system: str = "final") -> dict:
    return {"id": name, "system": system, "arm": "auto", "sample": 0, "mode": "off",
            "problem": None, "correct": correct, "tokens": tokens}  # fmt: skip


def run(outputs, name, samples=(), seed=0, held=True, texts=None, **overrides) -> None:
    """A run with stage 05's settings and claim, and the samples of stage 06."""
    five = StageRun.create(outputs, name, "05_step_srpo", seed=seed, overrides=overrides)
    claim = {"claim": "Tokens fall.", "reported": "-19 %", "measured": "-21 %", "held": held}
    five.write("verdict.json", [claim | {"kind": "report"}])
    five.record(tokens=21)
    six = StageRun.create(outputs, name, "06_evaluation", seed=seed, overrides=overrides)
    if samples:
        write_jsonl(six.dir / "arms.jsonl", samples)
    if texts:
        asked = [{"id": i, "messages": [{"role": "user", "content": t}]} for i, t in texts.items()]
        write_jsonl(six.dir / "queries.jsonl", asked)


def estimated(outputs, *names, column="correct"):
    """(means of the variants, difference of the last to the first) of the final's auto arm."""
    found = variants.group(outputs, names)
    pick = lambda frame: frame[frame["system"].eq("final")]  # noqa: E731
    means = [pooling.mean(one, column, pick) for one in found]
    return means, pooling.difference(found[0], found[-1], column, pick)


def test_repeats_differ_in_their_seed_alone(tmp_path):
    run(tmp_path, "a")
    run(tmp_path, "b", seed=1)
    run(tmp_path, "again")
    run(tmp_path, "idea", seed=1, **{"step_srpo.omega": 0.9})
    found = variants.group(tmp_path, ["a", "again", "b", "idea", "a"])
    assert [[one.name for one in variant.runs] for variant in found] == [
        ["a", "b"],
        ["again"],  # the same seed twice is no second seed
        ["idea"],
    ]
    assert [variant.name for variant in found] == ["a ×2", "again", "idea"]


def test_settings_that_differ_stand_first_and_the_others_not_at_all(tmp_path):
    run(tmp_path, "a")
    run(tmp_path, "idea", seed=1, **{"step_srpo.omega": 0.9, "model.sample_batch": 5})
    found = variants.apart([variants.read(tmp_path / name) for name in ("a", "idea")])
    assert found.index.tolist() == ["profile", "seed", "step_srpo.omega", "model.sample_batch"]
    assert found.loc["step_srpo.omega"].tolist() == ["0.1", "0.9"]
    assert found.loc["model.sample_batch"].tolist() == ["–", "5"]


def test_one_run_has_the_mean_and_interval_of_stage_06(tmp_path):
    samples = [sample(str(i), i % 3 > 0) for i in range(30)] + [sample("x", None)]
    run(tmp_path, "a", samples)
    (mean,), _ = estimated(tmp_path, "a")
    expected = intervals.bootstrap(pd.DataFrame(samples), "correct")
    assert (mean.value, mean.low, mean.high) == pytest.approx(expected)
    assert mean.value == pytest.approx(2 / 3) and mean.prompts == 30


def test_the_same_prompts_are_paired_and_what_they_share_cancels(tmp_path):
    before = [sample(str(i), i % 2 == 0, tokens=100 * i) for i in range(20)]
    after = [one | {"tokens": one["tokens"] + 7} for one in before]
    run(tmp_path, "a", before)
    run(tmp_path, "b", after[:16], **{"step_srpo.omega": 0.9})
    _, change = estimated(tmp_path, "a", "b", column="tokens")
    assert (change.value, change.low, change.high) == pytest.approx((7, 7, 7))
    assert change.paired and change.prompts == 16
    a, b = (pd.DataFrame(samples) for samples in (before, after[:16]))
    assert intervals.paired_difference(b, a, "tokens")[0] == pytest.approx(change.value)


def test_an_id_with_another_text_is_another_prompt(tmp_path):
    samples = [sample("p", True), sample("q", True), sample("r", False)]
    texts = {"p": "one", "q": "two", "r": "three"}
    run(tmp_path, "a", samples, texts=texts)
    run(tmp_path, "b", samples, texts=texts | {"q": "other"}, **{"step_srpo.omega": 0.9})
    _, change = estimated(tmp_path, "a", "b")
    assert change.paired and change.prompts == 2


def test_runs_without_a_prompt_in_common_are_not_paired(tmp_path):
    run(tmp_path, "a", [sample(f"a{i}", i < 5) for i in range(10)])
    run(tmp_path, "b", [sample(f"b{i}", i < 8) for i in range(10)], **{"step_srpo.omega": 0.9})
    _, change = estimated(tmp_path, "a", "b")
    assert not change.paired and change.value == pytest.approx(0.3)
    assert change.low < 0 < change.high  # ten prompts each cannot tell


def test_repeats_are_pooled_and_their_spread_is_told(tmp_path):
    for seed, right in enumerate((10, 14)):
        run(tmp_path, f"a{seed}", [sample(f"{seed}-{i}", i < right) for i in range(20)], seed=seed)
        better = [sample(f"{seed}-{i}", i < right + 4) for i in range(20)]
        run(tmp_path, f"b{seed}", better, seed=seed, **{"step_srpo.omega": 0.9})
    (a, b), change = estimated(tmp_path, "a0", "a1", "b0", "b1")
    assert a.value == pytest.approx(0.6) and b.value == pytest.approx(0.8)
    assert a.spread == pytest.approx((0.5, 0.7)) and a.prompts == 40
    assert a.low < 0.5 and a.high > 0.7  # wider than the seeds, since prompts vary too
    assert change.paired and change.prompts == 40
    assert change.value == pytest.approx(0.2)
    assert 0 < change.low < 0.2 < change.high < 0.5


def test_where_a_run_has_no_samples_nothing_is_made_up(tmp_path):
    run(tmp_path, "a", [sample("p", True), sample("q", False)])
    run(tmp_path, "b", **{"step_srpo.omega": 0.9})
    found = comparison.compare(tmp_path, ["a", "b"])
    assert [row.value and row.value.value for row in found.rows[:2]] == [50.0, None]
    assert found.rows[1].change is None
    assert "b has no stage 06, so it has none of the figures below." in comparison.notes(found)
    assert "  accuracy, %" in side_by_side.text(found)


def compared(outputs, monkeypatch) -> comparison.Comparison:
    """Runs demo and idea, 40 prompts, whose claim differs."""
    monkeypatch.setenv("COLUMNS", "80")
    samples = [sample(str(i), i < 30) for i in range(40)]
    run(outputs, "demo", samples)
    worse = [one | {"correct": i < 20, "mode": "on"} for i, one in enumerate(samples)]
    run(outputs, "idea", worse, held=False, **{"step_srpo.omega": 0.9})
    return comparison.compare(outputs, ["demo", "idea"])


def test_the_text_begins_with_the_settings_and_fits_80_columns(tmp_path, monkeypatch):
    lines = side_by_side.text(compared(tmp_path, monkeypatch)).splitlines()
    assert max(map(len, lines)) <= 80 and not re.search("\x1b", "".join(lines))
    words = [" ".join(line.split()) for line in lines]
    assert words.index("step_srpo.omega 0.1 0.9") < words.index("Stage 06, with 95 % intervals")
    assert any(re.match(r"idea 50\.0 \[.*\] −25\.0 \[.*\]\* 40", line) for line in words)
    assert "05 Tokens fall. -19 % -21 % ✓ -21 % ✗" in words


def test_claims_of_runs_that_lack_a_stage():
    row = {"run": "a", "claim": "Second.", "reported": "1", "measured": "1"}
    claims = pd.DataFrame([
        row | {"stage": "05_step_srpo", "held": True},
        row | {"stage": "01_x", "run": "b", "held": None},
        row | {"stage": "01_x", "run": "b", "claim": "First.", "held": False},
    ]).astype({"held": object})  # fmt: skip
    assert side_by_side.claim_rows(claims, ["a", "b"]) == [
        ["01", "Second.", "1", "–", "1"],
        ["01", "First.", "1", "–", "1 ✗"],
        ["05", "Second.", "1", "1 ✓", "–"],
    ]


def test_agreed_claims_are_counted_and_shown_on_demand(tmp_path):
    run(tmp_path, "a")
    run(tmp_path, "b", **{"step_srpo.omega": 0.9})
    found = comparison.compare(tmp_path, ["a", "b"])
    assert "Tokens fall." not in side_by_side.text(found)
    assert "Claims with the same verdict in every run: 1" in side_by_side.text(found)
    assert "Tokens fall." in side_by_side.text(found, everything=True)


def test_the_notebooks_table_has_the_same_figures(tmp_path, monkeypatch):
    found = compared(tmp_path, monkeypatch)
    shown = side_by_side.frame(found)
    row = shown.loc[("final, auto", "accuracy, %", "idea")]
    assert row["mean [95 %]"].startswith("50.0 [") and row["prompts"] == "40"
    assert row["minus demo"].startswith("−25.0 [") and row["minus demo"].endswith("*")
    alone = side_by_side.frame(comparison.compare(tmp_path, ["demo"]))
    assert (
        "minus demo" not in alone
        and side_by_side.frame(
            comparison.Comparison(
                [], found.variants, found.settings, [], found.claims, found.headline
            )
        ).empty
    )


def test_the_page_links_to_the_runs_and_lies_in_none(tmp_path, monkeypatch):
    found = compared(tmp_path, monkeypatch)
    (tmp_path / "idea" / "index.html").write_text("")
    path = side_by_side.page(found, side_by_side.page_path(tmp_path, ["demo", "idea"]))
    assert path == tmp_path / "compare-demo-idea.html"
    page = path.read_text()
    assert 'href="idea/index.html"' in page and 'href="demo/' not in page
    assert "step_srpo.omega" in page and "−25.0" in page and page.count("<svg") > 1
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(", page)
    assert page.index("Settings that differ") < page.index("Figures of stage 06")


def test_the_command_says_where_the_page_is_and_speaks_json(project, capsys):
    run(project / "outputs", "demo", [sample("p", True), sample("q", None)])
    run(project / "outputs", "idea", [sample("p", False)], **{"step_srpo.omega": 0.9})
    assert cli.main(["compare", "demo", "idea"]) == 0
    page = capsys.readouterr().out.splitlines()[-1]
    assert page == str(project / "outputs" / "compare-demo-idea.html")
    assert cli.main(["compare", "demo", "idea", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["step_srpo.omega"] == {"demo": "0.1", "idea": "0.9"}
    accuracy = told["figures"][1]
    assert accuracy["variant"] == "idea" and accuracy["change"]["value"] == -100.0
    assert [claim["held"] for claim in told["claims"]] == [True, True]


def test_a_run_that_is_not_there_is_one_sentence(tmp_path):
    run(tmp_path, "a")
    with pytest.raises(UserError, match="no run 'nope'"):
        comparison.compare(tmp_path, ["a", "nope"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="katlab run --run empty"):
        comparison.compare(tmp_path, ["a", "empty"])


def test_prompts_that_differ_in_names_alone_are_drawn_together():
    """Ten prompts of one problem are right, one of another is wrong: two draws, not eleven."""
    problems = ["a"] * 10 + ["b"]
    frame = pd.DataFrame({"id": [str(i) for i in range(11)], "correct": [True] * 10 + [False]})
    apart = pooling.over([frame], "correct")
    together = pooling.over([frame.assign(cluster=problems)], "correct")
    assert apart.value == together.value == 10 / 11 and apart.prompts == together.prompts == 11
    assert apart.low > 0.6 and (together.low, together.high) == (0, 1)


def test_what_rl_adds_stands_beside_cold_start_and_final_of_each_run(tmp_path, monkeypatch):
    """By hand: right before and after are 10 and 20 of 40, in a fork of other votes 30 and 20."""
    monkeypatch.setenv("COLUMNS", "80")

    def trained(before: int, after: int) -> list[dict]:
        ends = {"cold start": (before, 30), "final": (after, 20)}
        return [
            sample(str(i), i < right, tokens, system)
            for system, (right, tokens) in ends.items()
            for i in range(40)
        ]

    run(tmp_path, "own", trained(10, 20))
    run(tmp_path, "theirs", trained(30, 20), **{"cold_start.votes": "teachers"})
    found = comparison.compare(tmp_path, ["own", "theirs"])
    shown = side_by_side.frame(found)["mean [95 %]"]
    means = {
        run_: [shown[(group, "accuracy, %", run_)].split()[0] for group in shown.index.unique(0)]
        for run_ in ("own", "theirs")
    }
    assert shown.index.unique(0).tolist() == ["cold start, auto", "final, auto", comparison.ADDED]
    assert means == {"own": ["25.0", "50.0", "+25.0"], "theirs": ["75.0", "50.0", "−25.0"]}
    assert shown[(comparison.ADDED, "tokens", "own")] == "−10.0 [−10.0, −10.0]"
    assert shown[(comparison.ADDED, "think-on rate, %", "own")] == "+0.0 [+0.0, +0.0]"
    text = side_by_side.text(found)
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"cold_start.votes +\S+ +teachers", text)
    assert side_by_side.page(found, tmp_path / "page.html").read_text().count(comparison.ADDED) == 1


def test_what_rl_adds_is_paired_within_each_seed_and_needs_both_ends(tmp_path):
    for seed, gain in enumerate((4, 8)):
        run(tmp_path, f"s{seed}", [
            sample(f"{seed}-{i}", i < right, system=system)
            for system, right in (("cold start", 10), ("final", 10 + gain))
            for i in range(20)
        ], seed=seed)  # fmt: skip
    run(tmp_path, "half", [sample("p", True)], **{"step_srpo.omega": 0.9})
    found = comparison.compare(tmp_path, ["s0", "s1", "half"])
    added = [row for row in found.rows if row.group == comparison.ADDED]
    pooled, half = (row for row in added if row.measure == "accuracy, %")
    assert pooled.value.value == pytest.approx(30)
    assert pooled.value.spread == pytest.approx((20, 40))
    assert pooled.value.paired and pooled.value.prompts == 40
    assert half.value is None and side_by_side.valued(half) == "–"
