"""Stage 07, measured: what the report's section 6 shows by one example each, over many queries.

Figures 10 (simple query), 11 (hard query), 12 (an agent switching modes), 13 (modes forced by the
user). Deviation: the report gives no rates; the thresholds of the verdict are ours.

    headline = case_studies.run(stage);  cases, steps = case_studies.results(stage.dir)
"""

from pathlib import Path

import pandas as pd

from katlab import models
from katlab.arms import run_arm, teacher_arm, with_flags
from katlab.case_studies.agents import CHANGES, Step, agents
from katlab.case_studies.chat import Model, Reply, Tokenizer, load, replies
from katlab.lab import StageRun
from katlab.tasks import queries
from katlab.tasks.nano import world
from katlab.teachers import LocalResponder


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
    rows = queries.load(config, s.prompts, stage.seed + 1, "eval")
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
