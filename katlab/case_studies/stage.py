"""Stage 07, measured: what the report's section 6 shows by one example each, over many queries.

Figures 10 (simple query), 11 (hard query), 12 (an agent switching modes), 13 (modes forced by the
user). Deviation: the report gives no rates; the thresholds of the verdict are ours.

    headline = case_studies.run(stage);  cases, steps = case_studies.results(stage.dir)
"""

from pathlib import Path

import pandas as pd

from katlab import teachers
from katlab.arms import run_arm, teacher_arm, with_flags
from katlab.case_studies import chat
from katlab.case_studies.agents import CHANGES, Step, agents
from katlab.case_studies.chat import Chat, Reply
from katlab.lab import StageRun, work
from katlab.tasks import queries


def showcases(stage: StageRun, talk: Chat, rows: list[dict]) -> dict[str, tuple[dict, Reply]]:
    """The cases of Figures 10, 11 and 13, on the first fitting rows: nothing is picked by hand.

    A simple and a hard query as they are; the hard one told not to think, the simple one told to
    think deeper, each in words.
    """
    levels = [row["difficulty"] for row in rows]
    simple, hard = rows[levels.index(min(levels))], rows[levels.index(max(levels))]
    cases = {
        "A simple query": simple,
        "A hard query": hard,
        "The hard query, told not to think": _told(stage, hard, "off"),
        "The simple query, told to think deeper": _told(stage, simple, "on"),
    }
    asked = [(row["messages"], row["tools"]) for row in cases.values()]
    said = talk.replies(asked, max_new_tokens=stage.settings.max_new_tokens)
    return {name: (row, s) for (name, row), s in zip(cases.items(), said, strict=True)}


def _told(stage: StageRun, row: dict, mode: str) -> dict:
    """The query with the profile's first directive for a mode."""
    return queries.with_wish(row, vars(stage.config.prompts)[f"directive_{mode}"][0])


def teacher_reply(stage: StageRun, row: dict) -> str:
    """What the reasoning teacher answers to a query, greedily (the other model of Figure 10)."""
    return teachers.load(stage, "on").respond([row])[0][0]


@work
def run(stage: StageRun) -> dict[str, float]:
    """Measure section 6's claims over many queries; writes cases.jsonl and steps.jsonl.

    Settings [case_studies]: prompts, agents, memory, temperature, max_new_tokens. Returns headline
    figures.
    """
    s, talk = stage.settings, chat.load(stage)
    rows = queries.load(stage.config, s.prompts, stage.seed + 1, "eval")
    arms = {  # name: (rows, arm)
        "plain": (rows, "auto"),
        "told on": ([_told(stage, row, "on") for row in rows], "auto"),
        "told off": ([_told(stage, row, "off") for row in rows], "auto"),
        "forced on": (rows, "on"),
        "forced off": (rows, "off"),
    }
    limits = {"max_new_tokens": s.max_new_tokens, "temperature": s.temperature}
    frames = []
    for name, (asked, arm) in arms.items():
        frame = run_arm(stage, talk.model, talk.tokenizer, asked, arm, title=name, **limits)
        frames.append(with_flags(frame.assign(case=name)))
        stage.log(case=name, think_on=frames[-1]["thinks"].mean(), tokens=frame["tokens"].mean())
    bar = stage.bar(len(CHANGES) * s.agents, "agents at work")
    walked = agents(talk, s.agents, seed=stage.seed, memory=s.memory, on_step=bar.to, **limits)
    bar.close()
    frames.append(teacher_arm(stage, rows, "on", talk.tokenizer).assign(case="teacher"))
    cases, steps = pd.concat(frames, ignore_index=True), step_frame(walked)
    if stage.writes:
        cases.to_json(stage.dir / "cases.jsonl", orient="records", lines=True)
        steps.to_json(stage.dir / "steps.jsonl", orient="records", lines=True)
    return {
        "obeys_on": cases.loc[cases["case"] == "told on", "mode"].eq("on").mean().item(),
        "obeys_off": cases.loc[cases["case"] == "told off", "mode"].eq("off").mean().item(),
        "agent_steps_reached": steps["reached"].mean().item(),
    }


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
