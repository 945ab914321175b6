import json

import gates
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from katlab import UserError, arms, intervals, lab, template
from katlab.evaluation import controls, figures, judges, systems, tables, verdict
from katlab.evaluation import routing as metrics
from katlab.evaluation import stage as evaluation
from katlab.lab import StageRun
from katlab.tasks.nano import world

NAMES_MODE = lab.load_profile("nano").prompts.rationale_pattern
ROWS = world.queries(30, seed=0, split="eval")


def samples(ids: str, arm: str, modes: str, correct: list, tokens: list, **extra) -> pd.DataFrame:
    """A hand-made frame: one letter an id and, for the mode, n (on), f (off) or - (none)."""
    modes = [{"n": "on", "f": "off", "-": None}[m] for m in modes]
    frame = pd.DataFrame({"id": list(ids), "category": "math", "difficulty": 1, "arm": arm})
    frame["sample"] = frame.groupby("id").cumcount()
    frame["mode"], frame["correct"] = (pd.Series(v, dtype=object) for v in (modes, correct))
    return frame.assign(tokens=tokens, **extra)


# ---- the gate


# Four prompts, forced arms of two samples: p_on = 1, 1, 1/2, 0 and p_off = 1, 0, 0, 1/2.
ON = samples("aabbccdd", "on", "n" * 8, [1, 1, 1, 1, 1, 0, 0, 0], [10, 10, 20, 20, 30, 30, 40, 40])
OFF = samples("aabbccdd", "off", "f" * 8, [1, 1, 0, 0, 0, 0, 1, 0], [2] * 8)


def test_pass_rates_and_better_mode():
    assert metrics.pass_rates(ON).to_dict() == {"a": 1, "b": 1, "c": 0.5, "d": 0}
    best = metrics.better_mode(ON, OFF, per=["id"])
    assert best.to_dict() == {"a": "off", "b": "on", "c": "on", "d": "off"}
    wary = metrics.better_mode(ON, OFF, delta=0.5, per=["id"])
    assert wary.to_dict() == {"a": "off", "b": "on", "c": "off", "d": "off"}


def test_better_mode_of_a_cell_pools_its_prompts():
    on = ON.assign(difficulty=[1, 1, 2, 2, 2, 2, 1, 1])  # cell 1: a, d; cell 2: b, c
    best = metrics.better_mode(on, OFF)  # cell 1: p_on 0.5 < p_off 0.75; cell 2: 0.75 > 0
    assert best.to_dict() == {"a": "off", "b": "on", "c": "on", "d": "off"}


def test_hybrid_accuracy_and_f1_by_hand():
    best = pd.Series({"a": "off", "b": "on", "c": "on", "d": "off"})
    auto = samples("abcd", "auto", "nnf-", [1, 1, 0, 0], [1] * 4)
    # Only b agrees; on is chosen for a and b, right for b, wanted for b and c: P = R = 1/2.
    assert metrics.decisions(auto, best) == {
        "hybrid_accuracy": 0.25,
        "decision_f1": 0.5,
        "should_think": 0.5,
    }


def test_f1_where_nothing_thinks_and_nothing_should():
    auto = samples("ab", "auto", "ff", [1, 1], [1, 1])
    assert metrics.decisions(auto, pd.Series({"a": "off", "b": "off"}))["decision_f1"] == 0


def test_random_router_mixes_the_forced_arms_prompt_by_prompt():
    coin = metrics.random_router(ON, OFF, 0.25).set_index("id")
    assert coin["correct"].to_dict() == {"a": 1, "b": 0.25, "c": 0.125, "d": 0.375}
    assert coin["tokens"].to_dict() == {"a": 4, "b": 6.5, "c": 9, "d": 11.5}


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1))
def test_random_router_lies_between_the_arms(rate):
    coin = metrics.random_router(ON, OFF, rate)
    assert coin["correct"].mean() == pytest.approx(rate * 0.625 + (1 - rate) * 0.375)


def test_oracle_scores_on_the_half_it_did_not_choose_by():
    oracle = metrics.oracle_router(ON, OFF, per=["id"])
    got = oracle.sort_values(["id", "mode"]).groupby("id")["correct"].apply(list).to_dict()
    # c: sample 0 says on and scores sample 1 (0), sample 1 ties, off, and scores off's sample 0.
    # d: sample 0 says off, scores 0; sample 1 ties, off, scores 1.
    assert got == {"a": [1, 1], "b": [1, 1], "c": [0, 0], "d": [0, 1]}
    auto = samples("abcd", "auto", "nfnf", [1, 0, 1, 0], [10, 2, 30, 2])
    assert intervals.paired_difference(oracle, auto, "correct")[0] == 5 / 8 - 1 / 2  # regret
    assert oracle["tokens"].mean() == (2 + 2 + 20 + 20 + 30 + 2 + 2 + 2) / 8


def test_oracle_needs_two_samples():
    with pytest.raises(UserError, match="forced_samples"):
        metrics.oracle_router(ON[ON["sample"] == 0], OFF)


def answered(text: str, judge: str = "go") -> str:
    return f"{judge}\n</judge>\n\n<think_off>\n<answer>\n{text}\n</answer>"


def test_leakage_counts_tokens_and_markers():
    on = samples("ab", "on", "nn", [1, 1], [9, 9], answer_tokens=[3, 5], problem=None)
    off = samples("ab", "off", "ff", [1, 1], [9, 9], answer_tokens=[4, 9], problem=None)
    on["completion"] = [answered("7"), answered("7")]
    off["completion"] = [answered("Wait, 3+4=7"), answered("7, checked later")]
    assert metrics.leakage(on, off) == {
        "answer_tokens_off_minus_on": 2.5,
        "marked_on": 0,
        "marked_off": 0.5,  # "checked" is not the marker "check"
    }


def test_leakage_without_a_well_formed_pair_is_unknown():
    on = samples("a", "on", "n", [1], [9], answer_tokens=[3], problem="truncated", completion="")
    off = samples("a", "off", "f", [1], [9], answer_tokens=[4], problem=None)
    leaks = metrics.leakage(on, off.assign(completion=answered("7")))
    assert leaks["answer_tokens_off_minus_on"] is None


def test_judge_agreement_wants_the_mode_named_and_no_other():
    auto = samples("abcde", "auto", "nfff-", [1] * 5, [1] * 5)
    auto["completion"] = [
        answered("7", "hard, think on."),
        answered("7", "think off it is"),
        answered("7", "think on or think off"),
        answered("7", "no mode"),
        "think on",
    ]
    assert metrics.judge_agreement(auto, NAMES_MODE)[0] == 0.5


def test_judge_agreement_reads_the_profiles_words():
    auto = samples("ab", "auto", "nf", [1] * 2, [1] * 2)
    auto["completion"] = [answered("7", "mode: on"), answered("7", "think off")]
    assert metrics.judge_agreement(auto, "mode: (on|off)")[0] == 0.5


def test_failures_name_every_problem():
    frame = pd.DataFrame({"problem": ["truncated", None, "truncated", "two decisions"]})
    shares = metrics.failures(frame)
    assert shares["truncated"] == 0.5 and shares["two decisions"] == 0.25
    assert shares.sum() == 0.75 and list(shares.index) == list(template.PROBLEMS)


# ---- the stage


def population(prompts: int = 120) -> pd.DataFrame:
    """All systems' samples of a world where thinking helps from difficulty 2 on."""
    rng = np.random.default_rng(0)
    thinks = {"cold start": [0.8, 1, 1, 1, 1], "final": [0.1, 1, 1, 1, 1]}
    plan = [(s, arm, 1 if arm == "auto" else 2) for s in thinks for arm in arms.ARMS]
    plan += [(s, arm, 1) for s, arm in (("distilled", "on"), ("distilled", "off"))]
    plan += [("teacher on", "on", 1), ("teacher off", "off", 1)]
    rows = []
    for system, arm, n in plan:
        for i in range(prompts):
            difficulty = i // 6 % 5 + 1
            for sample in range(n):
                on = rng.random() < thinks[system][difficulty - 1] if arm == "auto" else arm == "on"
                right = rng.random() < (0.9 if on or difficulty == 1 else 0.1)
                label = (f"q{i}", world.CATEGORIES[i % 6], difficulty, system, arm, sample)
                rows.append((*label, "on" if on else "off", right, 90 if on else 30))
    columns = ["id", "category", "difficulty", "system", "arm", "sample", "mode", "correct"]
    frame = pd.DataFrame(rows, columns=[*columns, "tokens"])
    frame = frame.assign(problem=None, judge_tokens=20, answer_tokens=3)
    frame = frame.assign(judge="go", thought=None, answer="7")
    frame["thought_tokens"] = np.where(frame["mode"] == "on", 50, 0)
    frame["completion"] = [answered("7", f"think {mode}.") for mode in frame["mode"]]
    frame["answer"] = "7"
    return arms.with_flags(frame)


def summarized(arms: pd.DataFrame, system: str = "final") -> dict:
    return metrics.summarize(arms, system, names_mode=NAMES_MODE, t_max=128.0)


def test_a_gate_that_knows_when_beats_a_coin_and_one_that_does_not_does_not():
    arms = population()
    figures_ = summarized(arms)
    assert figures_["gain_over_random"][1] > 0
    assert figures_["hybrid_accuracy"] > 0.85
    assert metrics.alarms(figures_) == []
    auto = (arms["system"] == "final") & (arms["arm"] == "auto")
    blind = arms.copy()
    rng = np.random.default_rng(1)
    blind.loc[auto, "mode"] = rng.choice(["on", "off"], auto.sum())
    blind.loc[auto, "correct"] = rng.random(auto.sum()) < np.where(
        blind.loc[auto, "mode"] == "on", 0.9, 0.26
    )
    blind["thinks"] = blind["mode"].eq("on")
    alarms = metrics.alarms(summarized(blind))
    assert any("coin" in sentence for sentence in alarms)


def test_a_collapsed_gate_rings():
    arms = population()
    arms.loc[arms["arm"] == "auto", ["mode", "thinks"]] = ["on", True]
    assert "collapsed" in metrics.alarms(summarized(arms))[0]


def test_a_judge_that_names_another_mode_rings():
    arms = population()
    auto = (arms["system"] == "final") & (arms["arm"] == "auto")
    assert metrics.alarms(summarized(arms)) == []
    arms.loc[auto, "completion"] = answered("7", "think on.")  # a sixth of them goes on with off
    assert "names the mode that is taken in only" in " ".join(metrics.alarms(summarized(arms)))


def test_unscorable_samples_are_counted_and_are_in_no_accuracy():
    arms = population()
    arms["correct"] = arms["correct"].astype(object)
    final, code = arms["system"].eq("final"), arms["category"].eq("code")
    was = arms[final & ~code & arms["arm"].eq("auto")]["correct"].astype(float).mean()
    arms.loc[final & code, "correct"] = None
    figures_ = summarized(arms)
    assert figures_["unscorable"] == pytest.approx(1 / 6)
    assert figures_["auto_accuracy"][0] == pytest.approx(was)
    assert any("could not be scored" in sentence for sentence in metrics.alarms(figures_))
    table = tables.unscorable(arms)
    assert table.loc[("final", "auto")].tolist() == [120, 20, "16.7%"]
    assert table.loc[("cold start", "auto")].tolist() == [120, 0, "0.0%"]
    assert (
        tables.gate({"final": figures_}).loc["unscorable samples, three arms", "final"] == "16.7%"
    )
    assert tables.table_4(arms)["final, auto"].iloc[-1] == pytest.approx(100 * was)
    table = tables.outcomes(arms)
    right = (table["accuracy"] * table["samples"]).sum() / table["samples"].sum()
    assert right == pytest.approx(was) and table["samples"].sum() == 100


def test_the_headline_is_a_table_with_units():
    stems = [
        f"{name.replace(' ', '_')}_{key}" for name in evaluation.JUDGED for key in tables.HEADLINE
    ]
    assert set(tables.HEADLINE) == set(evaluation.HEADLINE)
    table = tables.headline(dict.fromkeys(stems, 0.25) | {"final_auto_tokens": 36.0})
    assert table.loc[("tokens", "per response"), "final"] == 36
    assert table.loc[("think-on rate", "%"), "cold start"] == 25


def test_tables_name_their_prompts():
    arms = population()
    table = tables.table_4(arms)
    assert table.index.names == ["group", "category", "prompts"]
    assert table.index.get_level_values("prompts").tolist() == [20] * 6 + [120]
    auto = metrics.pick(arms, "final", "auto")
    assert table["final, auto"].iloc[-1] == 100 * auto["correct"].mean()
    shown = tables.ranked(table).iloc[0].tolist()
    assert any("font-weight:700" in cell for cell in shown)
    assert all(isinstance(cell, Markup) for cell in shown)  # else a table shows its tags
    gate = tables.gate({"final": summarized(arms)})
    assert gate.loc["prompts", "final"] == 120
    direct = tables.by_direct_pass_rate(arms)
    assert direct["prompts"].sum() == 120 and list(direct.index) == [0, 0.5, 1]
    assert direct.loc[0, "think_on"] > direct.loc[1, "think_on"]
    assert tables.outcomes(arms)["samples"].sum() == 120
    assert tables.failure_table(arms)["samples"].sum() == 2 * 600 + 2 * 120
    assert (tables.cells(arms)["prompts per cell"] == 4).all()
    summary = {"final": summarized(arms)}
    assert tables.leaks(summary).loc["alarms", "final"] == "none"


def test_every_figure_has_a_title_and_labels():
    arms = population()
    drawn = [
        figures.think_on(arms),
        figures.think_on_map(arms),
        figures.tokens(arms),
        figures.teacher_tokens(arms),
        figures.systems(systems.table(systems.ways(gates.gated(), "length"), 128.0)),
    ]
    for figure in drawn:
        assert figure.get_suptitle() or figure.axes[0].get_title()
        assert all(axis.get_xlabel() or axis.get_ylabel() for axis in figure.axes)


def test_labels_are_set_apart_in_order():
    placed = figures._apart(np.array([0.5, 0.5, 0.9]), 0.1)
    assert sorted(placed) == list(placed[[0, 1, 2]])
    assert np.diff(placed).min() >= 0.1 - 1e-9


def test_run_writes_what_load_reads(tmp_path, model, tokenizer, monkeypatch):
    for name in ("03_mtp_distillation", "04_cold_start", "05_step_srpo"):
        made = StageRun.create(tmp_path, "r", name)
        model.save_pretrained(made.checkpoints / "student")
        tokenizer.save_pretrained(made.checkpoints / "student")
        made.finish()
    tried = [row | {"correct": row["difficulty"] < 4} for row in world.queries(60, 0, "rl")]
    lab.write_jsonl(made.dir / "candidates.jsonl", tried)
    teacher = str(tmp_path / "r" / "05_step_srpo" / "checkpoints" / "student")
    small = dict(prompts=30, forced_samples=2, temperature=1.0, max_new_tokens=4, delta=0.0)
    overrides = {f"evaluation.{key}": value for key, value in small.items()}
    overrides |= dict.fromkeys(("model.teacher_on", "model.teacher_off", "model.student"), teacher)
    stage = StageRun.create(tmp_path, "r", "06_evaluation", overrides=overrides)
    headline = evaluation.run(stage)
    arms, summary = evaluation.load(stage.dir)
    assert len(arms) == 30 * (1 + 1 + 1 + 5 + 5 + 2)
    decided = arms[arms["arm"].eq("auto") & arms["mode"].notna()]
    assert decided["p_on"].between(0, 1).all() and arms["cluster"].notna().all()
    exchanged = judges.load(stage.dir)
    assert set(exchanged["id"]) == set(decided.loc[decided["system"].eq("final"), "id"])
    assert len(exchanged) == 4 * exchanged["id"].nunique() == len(exchanged.dropna(subset="p_on"))
    assert summary["final"]["rule"] in controls.FEATURES
    assert arms[f"by {summary['final']['rule']}"].between(0, 1).all()
    assert summary["final"]["think_on"][0] == headline["final_think_on"]
    record = json.loads((stage.dir / "run.json").read_text())
    assert record["headline"]["cold_start_well_formed"] == headline["cold_start_well_formed"]
    assert tables.headline(headline).loc[("think-on rate", "%"), "final"] == pytest.approx(
        100 * headline["final_think_on"], abs=0.01
    )
    pd.testing.assert_series_equal(
        tables.table_4(arms)["final, auto"],
        tables.table_4(arms)["cold start, auto"],
        check_names=False,
    )  # the same weights under both names
    rows = verdict.rows(arms, summary)  # of a model that has learned nothing
    assert [row for row in rows if row.held is not None] == [
        row for row in rows if "well formed" in row.claim and row.held is False
    ]
    compared = systems.table(systems.ways(arms, summary["final"]["rule"]), 4.0)
    assert len(systems.listed(compared)) == 14 and len(tables.price(arms)) == 11
    assert evaluation.run(stage) == headline
    logged = stage.metrics()
    (stage.dir / "result.json").unlink()  # as a kill just before the end leaves it
    again = StageRun.open(stage.dir)
    assert evaluation.run(again) == headline and again.metrics() == logged
