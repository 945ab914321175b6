"""The committed review of the real model's seed 1, and the tables of README and docs from it."""

import json

import pandas as pd
import pytest
from conftest import CHECKOUT

from katlab.intervals import bootstrap, paired_difference
from katlab.lab import profiles
from katlab.review import tables

FOLDER = CHECKOUT / "outputs/reviews/real-0.5b"
SYSTEMS = {
    "cold start, deciding": ("before", "auto"),
    "final, deciding": ("after", "auto"),
    "final, always thinking": ("after", "on"),
    "final, never thinking": ("after", "off"),
    "cold start, always thinking": ("before", "on"),
    "cold start, never thinking": ("before", "off"),
}

THIRD = tuple(f"third, adaptthink {offset}" for offset in (2, 3, 4))
DRAWS = ("seed 1", "drawn again", "plain GRPO", "third cold start", *THIRD, "third, relative 2")


@pytest.fixture(scope="module")
def held_out() -> pd.DataFrame:
    return pd.read_csv(FOLDER / "held_out.csv").astype({"correct": float, "thinks": float})


@pytest.fixture(scope="module")
def summary() -> dict:
    return json.loads((FOLDER / "summary.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def replies() -> pd.DataFrame:
    rows = pd.read_csv(FOLDER / "test_sets.csv.gz", low_memory=False)
    return rows.assign(correct=rows["correct"].astype(float), thinks=rows["mode"].eq("on") * 1.0)


def part(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    student, arm = SYSTEMS[name]
    return rows[rows["student"].eq(student) & rows["arm"].eq(arm)]


def text(name: str) -> str:
    return (CHECKOUT / name).read_text(encoding="utf-8")


def plain(name: str) -> str:
    """A page's text with every line break a space."""
    return " ".join(text(name).split())


def interval(found: tuple[float, float, float]) -> str:
    return "{:+.1f} points [{:+.1f}, {:+.1f}]".format(*(100 * value for value in found))


def saved(rows: pd.DataFrame, other: pd.DataFrame) -> tuple[float, float, float]:
    """Percent of the other's tokens that rows save, and its interval."""
    mean, low, high = paired_difference(rows, other, "tokens", relative=True)
    return -100 * mean, -100 * high, -100 * low


def cells(rows: pd.DataFrame) -> str:
    right, thinks = (
        f"{m:.1%} [{100 * low:.1f}, {100 * high:.1f}]".replace("%", " %")
        for m, low, high in (bootstrap(rows, "correct"), bootstrap(rows, "thinks"))
    )
    return f"{right} | {'{:.0f} [{:.0f}, {:.0f}]'.format(*bootstrap(rows, 'tokens'))} | {thinks}"


def test_the_review_is_of_the_seed_to_report_and_of_every_set(summary):
    seeds = profiles.load("real-0.5b").seeds
    assert summary["seeds"] == seeds.reported and not summary["tuned_on_these"]
    assert not summary["commit"].endswith("-dirty") and summary["twins"] == 0
    assert summary["weights"].endswith("dequantised q4_k_m") and "H100" in summary["device"]
    assert [*summary["sets"]] == ["gsm8k", "math500", "mbpp", "procedural"]
    assert sum(one["n"] for one in summary["sets"].values()) == summary["n"]
    for one in summary["sets"].values():
        assert one["systems"].keys() >= {"base", "teacher that thinks", "always-on", "always-off"}


def test_readme_and_docs_have_its_tables_as_they_are_printed(summary):
    for line in tables.markdown(*tables.sets(summary, tables.APART)):
        assert line in text("README.md")
    for line in tables.markdown(tables.HEAD, tables.systems(summary, tables.ROWS)):
        assert line in text("README.md")
    assert tables.against(summary) in text("README.md")
    for line in tables.text(summary).splitlines():
        assert line in text("docs/real-0.5b.md")


def test_the_summary_is_that_of_the_rows(summary, replies):
    final = replies[replies["system"].eq("final") & replies["arm"].eq("auto")]
    for run, system in (("seed 1", "final (own votes)"), ("plain GRPO", "GRPO")):
        rows = final[final["run"].eq(run)]
        assert len(rows) == summary["n"]
        for name, of in [*rows.groupby("set"), ("", rows)]:
            kept = summary["sets"][name] if name else summary
            assert kept["systems"][system]["accuracy"][0] == pytest.approx(
                of["correct"].mean(), abs=1e-4
            )
            assert kept["systems"][system]["tokens"][0] == pytest.approx(
                of["tokens"].mean(), abs=1e-3
            )


def test_readme_and_docs_compare_on_the_test_sets_as_the_rows_say(replies):
    auto = replies[replies["arm"].eq("auto")]
    final, grpo = (
        auto[auto["run"].eq(run) & auto["system"].eq("final")] for run in ("seed 1", "plain GRPO")
    )
    cold = auto[auto["system"].eq("cold start")]
    readme, docs = plain("README.md"), plain("docs/real-0.5b.md")
    gain, fewer = paired_difference(final, cold, "correct"), saved(final, cold)
    less = "{:.0f} % of the tokens saved [{:.0f}, {:.0f}]".format(*fewer)
    assert f"{interval(gain)} with {less}" in readme and f"{interval(gain)}, {less}" in docs
    behind = paired_difference(final, grpo, "correct")
    fewer = "{:.0f} % of its tokens saved [{:.0f}, {:.0f}]".format(*saved(final, grpo))
    assert f"{interval(behind)} with {fewer}" in docs
    ahead = "{:.1f} points [{:.1f}, {:.1f}]".format(*(-100 * behind[i] for i in (0, 2, 1)))
    more = f"{100 * (grpo['tokens'].mean() / final['tokens'].mean() - 1):.0f} % more tokens"
    assert f"ends {ahead} *above* the gate with {more}" in readme


def test_the_readme_says_what_the_verdict_of_stage_06_measured():
    rows = json.loads((FOLDER / "real/06_evaluation/verdict.json").read_text(encoding="utf-8"))
    measured = {row["claim"]: row["measured"].replace("+", "") for row in rows}
    readme = plain("README.md").replace(" %", "%")
    gsm8k = measured["Think-on on GSM8K is at least 90%"].split(" ")[0]
    assert f"thinks on {gsm8k} of GSM8K and on all sums of four terms and more" in readme
    assert measured["Think-on on sums of four terms and more is at least 90%"][:6] == "100.0%"
    for none in ("one-digit sums", "letter counting"):
        assert measured[f"Think-on on {none} is at most 30%"][:4] == "0.0%"
    letters = measured["Letter counting: accuracy above always thinking's"]
    coin = measured["The gate beats a coin with its own think-on rate"]
    rule = measured["The gate beats the best rule of one feature, at equal tokens"]
    assert f"thinking costs {letters}" in readme and f"of its rate by {coin}" in readme
    assert f"rule of one feature by {rule.replace(' points', '')}" in readme


def test_docs_tell_of_the_sets_apart_as_the_rows_say(replies):
    docs, final = plain("docs/real-0.5b.md"), replies[replies["run"].eq("seed 1")]
    of = {name: rows for name, rows in final.groupby(["system", "arm"])}
    auto, always = of["final", "auto"], of["final", "on"]
    lcm = [100 * rows[rows["task"].eq("lcm")]["correct"].mean() for rows in (auto, always)]
    assert "for {:.1f} instead of {:.1f} %".format(*lcm) in docs
    assert f"The gate costs {lcm[1] - lcm[0]:.0f} points on least" in plain("README.md")
    levels = auto[auto["set"].eq("math500")].groupby("difficulty")["thinks"].mean()
    assert (
        "on {:.0f}, {:.0f}, {:.0f}, {:.0f} and {:.0f} % from level 1 to 5".format(*100 * levels)
        in docs
    )
    problems = auto["problem"].value_counts()
    assert [*problems.index] == ["truncated", "unclosed"]
    assert "{} were cut at 768 tokens and {} not closed".format(*problems) in docs
    code = [
        rows for (system, _), rows in of.items() if system in ("distilled", "cold start", "final")
    ]
    assert not any(rows[rows["set"].eq("mbpp")]["correct"].any() for rows in code)


@pytest.fixture(scope="module")
def draws(held_out) -> pd.DataFrame:
    """Stage 05's held-out prompts after every whole draw of Step-SRPO, and before it."""
    drawn = pd.read_csv(FOLDER / "draws.csv.gz").astype({"correct": float, "thinks": float})
    after = held_out["student"].eq("after")
    named = held_out.assign(run=after.map({True: "seed 1", False: "first cold start"}))
    return pd.concat([named, drawn])


def of(draws: pd.DataFrame, name: str, arm: str = "auto") -> pd.DataFrame:
    return draws[draws["run"].eq(name) & draws["arm"].eq(arm)]


def cold(draws: pd.DataFrame, name: str) -> pd.DataFrame:
    third = name.startswith("third")
    return of(draws, "third cold start" if third else "first cold start")


def by_kind(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    sums = rows["task"].eq("chain_sum")
    return {
        "GSM8K": rows[rows["task"].eq("gsm8k")],
        "long sums": rows[sums & rows["difficulty"].ge(4)],
        "short sums": rows[sums & rows["difficulty"].eq(1)],
        "letters": rows[rows["task"].eq("letter_counting")],
        "lcm": rows[rows["task"].eq("lcm")],
    }


def above_a_coin(draws: pd.DataFrame, name: str) -> str:
    """Accuracy above that of a coin of the gate's own rate, expected prompt by prompt."""
    gate, on, off = (of(draws, name, arm).set_index("id") for arm in ("auto", "on", "off"))
    rate = gate["thinks"].mean()
    coin = on.assign(correct=rate * on["correct"] + (1 - rate) * off["correct"])
    return interval(paired_difference(gate.reset_index(), coin.reset_index(), "correct"))


@pytest.mark.parametrize("name", DRAWS)
def test_docs_have_every_draw_as_its_rows_say(draws, name):
    rows, docs = of(draws, name), text("docs/real-0.5b.md")
    assert sorted(rows["id"]) == sorted(of(draws, "seed 1")["id"])
    assert f"| {name} | {cells(rows)} |" in docs
    if name == "third cold start":
        return
    always, before = of(draws, name, "on"), cold(draws, name)
    told = [interval(paired_difference(rows, side, "correct")) for side in (before, always)]
    told += ["{:.0f} % [{:.0f}, {:.0f}]".format(*saved(rows, always))]
    told += [f"{kind['thinks'].sum():.0f} of {len(kind)}" for kind in by_kind(rows).values()]
    assert f"| {name} | {' | '.join(told)} |" in docs


def test_readme_and_docs_count_the_draws_that_end_with_a_gate(draws):
    whole = ("seed 1", "drawn again", *THIRD)
    share = {name: of(draws, name)["thinks"].mean() for name in whole}
    gates = [name for name in whole if share[name] < 0.6]
    assert len(gates) == 3 and all(share[name] > 0.99 for name in {*whole} - {*gates})
    assert "when to think, in three of five tries" in plain("README.md")
    assert "Three of five whole draws" in plain("docs/real-0.5b.md")
    for name in gates:
        kinds = by_kind(of(draws, name))
        assert kinds["GSM8K"]["thinks"].mean() > 0.85
        assert not kinds["short sums"]["thinks"].any() and not kinds["letters"]["thinks"].any()


def test_readme_and_docs_compare_the_draws_as_their_rows_say(draws):
    readme, docs = plain("README.md"), plain("docs/real-0.5b.md")
    start = of(draws, "third cold start")
    three = pd.concat([of(draws, name) for name in THIRD])
    gain = interval(paired_difference(three, start, "correct"))
    fewer = "{:.0f} % of its tokens saved [{:.0f}, {:.0f}]".format(*saved(three, start))
    assert f"{gain} above it with {fewer}" in docs and f"{gain} over it with {fewer}" in readme
    gates = [name for name in THIRD if of(draws, name)["thinks"].mean() < 0.6]
    lost, less = [], []
    for name in gates:
        sides = of(draws, name), of(draws, name, "on")
        found = paired_difference(*sides, "correct")
        lost.append("{:.1f} [{:.1f}, {:.1f}]".format(*(-100 * found[i] for i in (0, 2, 1))))
        less.append(f"{saved(*sides)[0]:.0f}")
    told = f"lose {' and '.join(lost)} points"
    assert told in docs and f"save {' and '.join(less)} % of the tokens and {told}" in readme
    coins = " and ".join(above_a_coin(draws, name) for name in gates)
    first = above_a_coin(draws, "seed 1")
    assert f"have {coins} over a coin of their rate, seed 1's {first}" in docs
    relative, same = of(draws, "third, relative 2"), of(draws, "third, adaptthink 2")
    found = interval(paired_difference(relative, same, "correct"))
    assert f"{found} above it with as many tokens" in docs
    assert f"{found} above the constant price on the same queries" in readme
    low, high = saved(relative, same)[1:]
    assert low < 0 < high
    gain = interval(paired_difference(relative, start, "correct"))
    assert f"{gain} against the cold start" in docs


def test_docs_tell_how_the_gate_moves_as_the_steps_say():
    steps, docs = pd.read_csv(FOLDER / "gate.csv"), plain("docs/real-0.5b.md")
    share = {run: rows.set_index("step")["think_on"] for run, rows in steps.groupby("run")}
    again = share["drawn again"]
    assert f"from {again[3]:.0%} in step 3 to {again[7]:.0%}".replace("%", " %") in docs
    assert again.loc[10:].round(2).ge(0.99).all()
    moves = [share[name].diff().std() for name in ("seed 1", "third, adaptthink 2", THIRD[2])]
    assert f"(standard deviation {100 * min(moves):.0f} to {100 * max(moves):.0f})" in docs
    falls = share["third, adaptthink 4"]
    assert f"from {falls[27]:.0%} in step 27 to {100 * falls[35]:.0f} in".replace("%", " %") in docs
    swings = share["third, adaptthink 2"].loc[10:]
    assert f"between {100 * swings.min():.0f} and {100 * swings.max():.0f} % from step 10" in docs
    swings = share["third, relative 2"]
    assert f"between {100 * swings.min():.0f} and {100 * swings.max():.0f} %. One pair" in docs
    cut = share["second, adaptthink 2"], share["second, relative 2"]
    assert [side.index[-1] for side in cut] == [17, 15]
    assert f"at {cut[0][17]:.0%} in step 17".replace("%", " %") in plain("README.md")
    assert f"at {cut[0][17]:.0%} in step 17".replace("%", " %") in docs
    assert f"at {cut[1][15]:.0%} in step 15".replace("%", " %") in docs
    push = steps[steps["run"].eq("seed 1")]["push"]
    told = f"by {push.mean():.3f} on average over the {len(push)} steps, with a standard"
    assert f"{told} deviation of {push.std():.2f} from step to step" in docs


def test_the_steps_are_those_of_the_rollouts():
    rows = pd.read_csv(FOLDER / "rollouts.csv.gz", keep_default_na=False)
    steps = pd.read_csv(FOLDER / "gate.csv").set_index(["run", "step"])["think_on"]
    read = rows[rows["mode"].isin(["on", "off"])]
    found = read["mode"].eq("on").groupby([read["run"], read["step"]]).mean()
    assert len(found) == 4 * 36 and rows.groupby(["run", "step"]).size().eq(256).all()
    assert found.sub(steps.loc[found.index]).abs().max() < 0.01
    same = [rows[rows["run"].eq(f"third, {name} 2")] for name in ("adaptthink", "relative")]
    assert [*same[0]["id"].unique()] == [*same[1]["id"].unique()]


def test_what_pushes_all_decisions_is_the_queries_a_step_draws():
    rows = pd.read_csv(FOLDER / "rollouts.csv.gz")
    rows = rows[rows["mode"].isin(["on", "off"])]
    thinks = rows["mode"].eq("on") * 1.0
    share = thinks.groupby([rows["run"], rows["step"], rows["id"]]).transform("mean")
    rows = rows.assign(push=rows["advantage_judge"] * (thinks - share))
    steps = rows.groupby(["run", "step"])["push"].mean().groupby("run")
    query = rows.groupby(["run", "step", "id"])["push"].mean().groupby(["run", "step"])
    chance = query.var().div(query.size()).groupby("run").mean() ** 0.5
    mean, moves = steps.mean(), steps.std()
    told = (
        f"it is {mean.min():.3f} to {mean.max():+.3f}, with {moves.min():.2f} to {moves.max():.2f}"
    )
    docs = plain("docs/real-0.5b.md")
    assert f"{told} from step to step" in docs
    assert f"do have {chance.min():.2f} to {chance.max():.2f} by chance" in docs
    assert (moves / chance).between(0.7, 1.3).all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_docs_have_every_system_as_its_rows_say(held_out, name):
    rows = part(held_out, name)
    assert rows["id"].nunique() == len(rows) == 300
    assert f"| {name} | {cells(rows)} |" in text("docs/real-0.5b.md")


def test_the_docs_compare_as_its_rows_say(held_out):
    final, docs = part(held_out, "final, deciding"), plain("docs/real-0.5b.md")
    for other in ("cold start, deciding", "final, always thinking"):
        rows = part(held_out, other)
        fewer = "{:.0f} % of the tokens saved [{:.0f}, {:.0f}]".format(*saved(final, rows))
        assert f"{interval(paired_difference(final, rows, 'correct'))} with {fewer}" in docs


def test_the_docs_say_where_it_thinks_as_its_rows_say(held_out):
    final, always = part(held_out, "final, deciding"), part(held_out, "final, always thinking")
    sums, docs = final["task"].eq("chain_sum"), plain("docs/real-0.5b.md")
    gsm8k, letters = final["task"].eq("gsm8k"), final["task"].eq("letter_counting")
    long, short = sums & final["difficulty"].ge(4), sums & final["difficulty"].eq(1)
    assert final[gsm8k | long]["thinks"].all() and not final[short | letters]["thinks"].any()
    assert f"on all {gsm8k.sum()} GSM8K problems and all {long.sum()} sums of four" in docs
    assert f"none of {short.sum()} one-digit sums and {letters.sum()} counts of letters" in docs
    lost = [rows[rows["task"].eq("lcm")]["correct"].mean() for rows in (always, final)]
    assert f"which costs it {int(100 * (lost[0] - lost[1]))} points there" in docs


def test_the_docs_have_every_kind_of_query_as_its_rows_say(held_out):
    names = ("cold start, deciding", "final, deciding", "final, always thinking")
    sides = [part(held_out, name) for name in (*names, "final, never thinking")]
    for kind, of in sides[0].groupby("task"):
        rows = [side[side["id"].isin(of["id"])] for side in sides]
        told = [f"{100 * side['thinks'].mean():.0f}" for side in rows[:2]]
        told += [f"{100 * side['correct'].mean():.1f}" for side in rows]
        told += [f"{side['tokens'].mean():.0f}" for side in rows[:3]]
        line = " | ".join([kind.replace("_", " "), str(len(of)), *told])
        assert f"| {line} |" in text("docs/real-0.5b.md")


def test_the_docs_say_how_often_the_judge_has_the_answer(held_out):
    final = part(held_out, "final, deciding")
    direct = final[final["mode"].eq("off")]
    told = direct["answer_in_judge"].astype(bool)
    right = [direct[rows]["correct"].mean() for rows in (told, ~told)]
    docs = plain("docs/real-0.5b.md")
    assert f"in {told.mean():.1%}".replace("%", " %") + f" of the final model's {len(told)}" in docs
    assert f"of which {right[0]:.0%} are right, the others in".replace("%", " %") in docs
    assert f"the others in {100 * right[1]:.0f}." in docs


def test_the_docs_have_every_claim_of_stage_07_as_it_was_judged():
    rows = json.loads((FOLDER / "real/07_case_studies/verdict.json").read_text(encoding="utf-8"))
    claims = [row for row in rows if row["kind"] != "fact"]
    assert {row["held"] for row in claims} == {True, False}
    for row in claims:
        line = f"| {row['claim']} | {row['measured']} | {'✓' if row['held'] else '✗'} |"
        assert line in text("docs/real-0.5b.md")
    (steps,) = (row["measured"] for row in rows if row["claim"].startswith("Agents by step"))
    done = [int(part.split(") ")[1].split("%")[0]) for part in steps.split("; ")]
    told = "in {3} % of the cases, give the one command that tests a file in {2} %, the one that"
    told = (told + " reads it in {0} %, and fix none of 32 bugs").format(*done)
    assert told in plain("docs/real-0.5b.md") and done[1] == 0


def test_it_is_the_seed_to_report_on_weights_that_are_told():
    seeds = profiles.load("real-0.5b").seeds
    stages = sorted(path for path in (FOLDER / "real").iterdir() if path.is_dir())
    assert [path.name[:2] for path in stages] == [f"0{number}" for number in range(9)]
    for stage in stages:
        given = json.loads((stage / "run.json").read_text(encoding="utf-8"))["parameters"]
        assert given["seed"] in seeds.reported and given["seed"] not in seeds.tuning
        assert given["overrides"]["model.weights"] == "dequantised q4_k_m"
        assert "/tmp/" not in (stage / "report.html").read_text(encoding="utf-8")
