"""Stage 07, measured: what the report's section 6 shows by one example each, over many queries.

Figures 10 (simple query), 11 (hard query), 12 (an agent switching modes), 13 (modes forced by the
user). Deviation: the report gives no rates; the thresholds of the verdict are ours.

    headline = case_studies.run(stage);  cases, steps = case_studies.results(stage.dir)
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from katlab import models
from katlab.chat import CHANGES, Model, Reply, Step, Tokenizer, agents, load, replies
from katlab.evaluation import run_arm, teacher_arm, with_flags
from katlab.evaluation_metrics import bootstrap, paired_difference
from katlab.lab.runs import StageRun
from katlab.nano import world
from katlab.responders import LocalResponder
from katlab.synthesis import load_queries


def showcases(
    model: Model, tok: Tokenizer, rows: list[dict], **how
) -> dict[str, tuple[dict, Reply]]:
    """The cases of Figures 10, 11 and 13, on the first fitting rows: nothing is picked by hand.

    A simple and a hard query as they are; the hard one told not to think, the simple one told to
    think deeper, each in words.
    """
    levels = [row["difficulty"] for row in rows]
    simple, hard = rows[levels.index(min(levels))], rows[levels.index(max(levels))]
    cases = {
        "A simple query": simple,
        "A hard query": hard,
        "The hard query, told not to think": world.with_directive(hard, "off"),
        "The simple query, told to think deeper": world.with_directive(simple, "on"),
    }
    said = replies(model, tok, [(row["messages"], row["tools"]) for row in cases.values()], **how)
    return {name: (row, s) for (name, row), s in zip(cases.items(), said, strict=True)}


def teacher_reply(stage: StageRun, row: dict) -> str:
    """What the reasoning teacher answers to a query, greedily (the other model of Figure 10)."""
    folder = Path(models.locate(stage.config.model.teacher_on))
    teacher = LocalResponder(folder, stage.settings.max_new_tokens)
    return teacher.respond([row])[0][0]


def run(stage: StageRun) -> dict[str, float]:
    """Measure section 6's claims over many queries; writes cases.jsonl and trajectories.json.

    Settings [case_studies]: prompts, agents, memory, temperature, max_new_tokens. Returns headline
    figures.
    """
    s, config = stage.settings, stage.config
    model, tok = load(stage)
    rows = load_queries(config, s.prompts, stage.seed + 1, "eval")
    arms = {  # name: (rows, arm)
        "plain": (rows, "auto"),
        "told on": ([world.with_directive(row, "on") for row in rows], "auto"),
        "told off": ([world.with_directive(row, "off") for row in rows], "auto"),
        "forced on": (rows, "on"),
        "forced off": (rows, "off"),
    }
    bar = stage.bar(len(arms) * len(rows) + len(CHANGES) * s.agents, "measuring the cases")
    frames, done = [], 0
    for name, (asked, arm) in arms.items():
        frame = run_arm(
            model,
            tok,
            asked,
            arm,
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            seed=stage.seed,
            batch_size=config.model.sample_batch,
            on_batch=lambda now, _, before=done: bar.to(before + now),
        )
        done += len(frame)
        frames.append(with_flags(frame.assign(case=name)))
        stage.log(case=name, think_on=frames[-1]["thinks"].mean(), tokens=frame["tokens"].mean())
    walked = agents(
        model,
        tok,
        s.agents,
        seed=stage.seed,
        memory=s.memory,
        temperature=s.temperature,
        max_new_tokens=s.max_new_tokens,
        on_step=lambda now, before=done: bar.to(before + now),
    )
    bar.close()
    frames.append(teacher_arm(stage, rows, "on", tok).assign(case="teacher"))
    cases, steps = pd.concat(frames, ignore_index=True), step_frame(walked)
    if stage.writes:
        cases.to_json(stage.dir / "cases.jsonl", orient="records", lines=True)
        steps.to_json(stage.dir / "steps.jsonl", orient="records", lines=True)
    headline = {
        "obeys_on": cases.loc[cases["case"] == "told on", "mode"].eq("on").mean().item(),
        "obeys_off": cases.loc[cases["case"] == "told off", "mode"].eq("off").mean().item(),
        "agent_steps_reached": steps["reached"].mean().item(),
    }
    stage.record(**headline)
    return headline


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The graded replies of every case and the agents' steps that `run` left in a folder."""
    cases = pd.read_json(folder / "cases.jsonl", lines=True, dtype=False)
    return cases, pd.read_json(folder / "steps.jsonl", lines=True, dtype=False)


def step_frame(walked: list[list[Step]]) -> pd.DataFrame:
    """One row a step: id (the agent), step, changes, mode, thinks, reached, tokens, problem."""
    return pd.DataFrame(
        {
            "id": agent,
            "step": number,
            "changes": step.changes,
            "mode": step.reply.mode,
            "thinks": step.reply.mode == "on",
            "reached": step.reached,
            "tokens": step.reply.tokens["all"],
            "problem": step.reply.problem,
        }
        for agent, steps in enumerate(walked)
        for number, step in enumerate(steps, start=1)
    )


def by_case(cases: pd.DataFrame) -> pd.DataFrame:
    """Each case's think-on rate and accuracy with intervals, well-formed share, tokens, prompts."""
    table = {}
    for name, frame in cases.groupby("case", sort=False):
        rate, accuracy = bootstrap(frame, "thinks"), bootstrap(frame, "correct")
        table[name] = {
            "think-on rate": _percent(rate),
            "accuracy": _percent(accuracy),
            "well formed": f"{frame['well_formed'].mean():.1%}",
            "tokens": f"{frame['tokens'].mean():.1f}",
            "prompts": frame["id"].nunique(),
        }
    return pd.DataFrame(table).T


def verdict(
    cases: pd.DataFrame, steps: pd.DataFrame
) -> list[tuple[str, object, object, bool | None]]:
    """The rows of stage 07's verdict; what the report shows once is measured over `n` queries."""
    case = dict(list(cases.groupby("case")))
    easiest, hardest = cases["difficulty"].min(), cases["difficulty"].max()
    simple = case["plain"][case["plain"]["difficulty"] == easiest]
    hard = case["plain"][case["plain"]["difficulty"] == hardest]
    calm, deep = bootstrap(simple.assign(off=~simple["thinks"]), "off"), bootstrap(hard, "thinks")
    told = {
        mode: bootstrap(frame.assign(obeys=frame["mode"].eq(mode)), "obeys")
        for mode, frame in (("off", case["told off"]), ("on", case["told on"]))
    }
    forced = pd.concat([case["forced on"], case["forced off"]])
    formed = bootstrap(forced, "well_formed")
    reached = bootstrap(steps, "reached")
    both = steps.groupby("id")["thinks"].agg(lambda t: t.any() and not t.all())
    switches = bootstrap(both.rename("both").reset_index(), "both")
    less = paired_difference(simple, case["teacher"], "tokens", relative=True)
    n, m = case["plain"]["id"].nunique(), steps["id"].nunique()
    return [
        (
            f"A simple query is answered without thinking (Figure 10; n = {len(simple)})",
            "one example",
            _percent(calm),
            calm[0] >= 0.80,
        ),
        (
            f"It costs fewer tokens than a reasoning model (n = {len(simple)})",
            "379 thought tokens saved",
            f"{less[0]:+.0%} [{less[1]:+.0%}, {less[2]:+.0%}]",
            less[2] < 0,
        ),
        (
            f"A hard query is thought through (Figure 11; n = {len(hard)})",
            "one example",
            _percent(deep),
            deep[0] >= 0.90,
        ),
        (
            f"An agent switches modes along its steps (Figure 12; {m} agents)",
            "one trajectory",
            _percent(switches),
            switches[0] >= 0.90,
        ),
        (
            f"Its tool calls do what was asked ({len(steps)} steps)",
            "one trajectory",
            _percent(reached),
            reached[0] >= 0.80,
        ),
        (
            f'"Do not think." in the query is obeyed (Figure 13; n = {n})',
            "one example",
            _percent(told["off"]),
            told["off"][0] >= 0.90,
        ),
        (
            f'"Think deeper." in the query is obeyed (Figure 13; n = {n})',
            "one example",
            _percent(told["on"]),
            told["on"][0] >= 0.90,
        ),
        (
            f"A mode forced by program gives well-formed replies (n = {len(forced)})",
            "not reported",
            _percent(formed),
            formed[0] >= 0.98,
        ),
    ]


def control_figure(cases: pd.DataFrame, steps: pd.DataFrame) -> Figure:
    """Think-on rate by difficulty as asked for in words, and what agents do at each step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True, layout="constrained")
    for name, colour in (("told on", "#2563eb"), ("plain", "#94a3b8"), ("told off", "#16a34a")):
        asked = cases[cases["case"] == name]
        points = {d: bootstrap(part, "thinks") for d, part in asked.groupby("difficulty")}
        mean, low, high = np.array(list(points.values())).T
        left.errorbar(
            list(points),
            mean,
            yerr=[mean - low, high - mean],
            color=colour,
            marker="o",
            capsize=3,
            label={"plain": "nothing said"}.get(name, name),
        )
    left.set(title="wishes in words (95 % intervals)", xlabel="difficulty", xticks=list(points))
    left.set(ylabel="share", ylim=(-0.03, 1.05))
    left.legend(title="think-on rate", frameon=False)
    by_step = steps.groupby("step")[["thinks", "reached"]].mean()
    right.bar(by_step.index - 0.2, by_step["thinks"], 0.36, color="#2563eb", label="thinks")
    right.bar(by_step.index + 0.2, by_step["reached"], 0.36, color="#7c3aed", label="dial is right")
    asked = steps.groupby("step")["changes"].first()
    labels = [f"{step}: {n} change{'s' * (n > 1)}" for step, n in asked.items()]
    right.set(xticks=by_step.index, xticklabels=labels, xlabel="step of the agent")
    right.set_title(f"agents with tools (n = {steps['id'].nunique()})")
    right.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.25))
    figure.suptitle("Who decides: the user's words and the agent's step")
    return figure


def _percent(interval: tuple[float, float, float]) -> str:
    mean, low, high = interval
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"
