"""Stage 07, measured: what the report's section 6 shows by one example each, over many queries.

Figures 10 (simple query), 11 (hard query), 12 (an agent switching modes), 13 (modes forced by the
user). Deviation: the report gives no rates; the thresholds of the verdict are ours.

    headline = case_studies.run(stage);  cases, steps = case_studies.results(stage.dir)
"""

from pathlib import Path

import pandas as pd

from katlab import teachers, template
from katlab.arms import run_arm, teacher_arm, with_flags
from katlab.case_studies.agents import CHANGES, Step, agents, trajectory
from katlab.conversation import chat, transcript
from katlab.conversation.chat import Chat, Reply
from katlab.lab import StageRun, read_jsonl, work
from katlab.tasks import queries

STEP = ["id", "step", "changes", "mode", "thinks", "reached", "tokens", "problem"]


def showcases(stage: StageRun, talk: Chat, rows: list[dict]) -> dict[str, tuple[dict, Reply]]:
    """The cases of Figures 10, 11 and 13, on the first fitting rows: nothing is picked by hand.

    A simple and a hard query as they are; the hard one told not to think, the simple one told to
    think, each in words.
    """
    levels = [row["difficulty"] for row in rows]
    simple, hard = rows[levels.index(min(levels))], rows[levels.index(max(levels))]
    cases = {
        "A simple query": simple,
        "A hard query": hard,
        "The hard query, told not to think": _told(stage, hard, "off"),
        "The simple query, told to think": _told(stage, simple, "on"),
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
    figures; without `agent_steps_reached` where no agent was run (`no_agents` says why).
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
    stage.forget_after(-1, "cases")
    frames = []
    for name, (asked, arm) in arms.items():
        frame = run_arm(stage, talk.model, talk.tokenizer, asked, arm, title=name, **limits)
        frames.append(with_flags(frame.assign(case=name)))
        think_on, tokens = frames[-1]["thinks"].mean(), frame["tokens"].mean()
        stage.log(phase="cases", case=name, think_on=think_on, tokens=tokens)
    walked = [] if no_agents(stage) else _walk(stage, talk, s.agents, **limits)
    frames.append(teacher_arm(stage, rows, "on", talk.tokenizer).assign(case="teacher"))
    cases, steps = pd.concat(frames, ignore_index=True), step_frame(walked)
    if stage.writes:
        cases.to_json(stage.dir / "cases.jsonl", orient="records", lines=True)
        steps.to_json(stage.dir / "steps.jsonl", orient="records", lines=True)
    obeys = {
        f"obeys_{mode}": cases.loc[cases["case"] == f"told {mode}", "mode"].eq(mode).mean().item()
        for mode in template.MODES
    }
    return obeys | ({"agent_steps_reached": steps["reached"].mean().item()} if walked else {})


def no_agents(stage: StageRun) -> str:
    """Why this profile's model is given no agent's task, in one sentence; empty where it is."""
    if stage.config.model.queries == "nano":
        return ""
    return (
        "No agent is run: its house speaks like the nano world's tool-use queries, and "
        f"model.queries is {stage.config.model.queries}."
    )


def one_agent(stage: StageRun, talk: Chat) -> str:
    """An agent's four steps, greedily, as HTML; or why there is none."""
    if reason := no_agents(stage):
        return reason
    (steps,) = _walk(stage, talk, 1, max_new_tokens=stage.settings.max_new_tokens)
    return transcript.html(trajectory(steps), "An agent's four steps")


def _walk(stage: StageRun, talk: Chat, n: int, **limits) -> list[list[Step]]:
    bar = stage.bar(len(CHANGES) * n, "agents at work")
    memory = stage.settings.memory
    walked = agents(talk, n, seed=stage.seed, memory=memory, on_step=bar.to, **limits)
    bar.close()
    return walked


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The graded replies of every case and the agents' steps that `run` left in a folder."""
    cases = pd.DataFrame(read_jsonl(folder / "cases.jsonl"))
    return cases, pd.DataFrame(read_jsonl(folder / "steps.jsonl"), columns=STEP)


def step_frame(walked: list[list[Step]]) -> pd.DataFrame:
    """One row per step: id (the agent), step, changes, mode, thinks, reached, tokens, problem."""
    rows = [
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
    ]
    return pd.DataFrame(rows, columns=STEP)
