"""Stage 07, measured: what the report's section 6 shows by one example each, over many queries.

Figures 10 (simple query), 11 (hard query), 12 (an agent switching modes), 13 (modes forced by the
user). Deviations: (1) the report gives no rates; the thresholds of the verdict are ours; (2) wishes
are told in words that were trained on and in others (`katlab.tasks.wishes`), counted apart.

    headline = case_studies.run(stage);  cases, steps = case_studies.results(stage.dir)
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from katlab import teachers, template
from katlab.arms import run_arm, teacher_arm, with_flags
from katlab.case_studies.agents import Errand, Step, agents, trajectory
from katlab.conversation import chat, transcript
from katlab.conversation.chat import Chat, Reply
from katlab.lab import StageRun, read_jsonl, work
from katlab.lab.stages import root
from katlab.tasks import queries, repository, wishes

STEP = ["id", "step", "asks", "mode", "thinks", "reached", "tokens", "problem"]


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
    """The query with the profile's first wish for a mode that was not trained on."""
    return queries.with_wish(row, wishes.tested(stage.config.prompts, mode)[0])


def _asked(stage: StageRun, rows: list[dict]) -> list[tuple[str, str, str, list[dict]]]:
    """Every case over the same rows: its name, the wording of its wish, the arm, what is asked.

    A wish is told in the words that were trained on ("seen") and in held-out ones ("unseen"), each
    as often as the next; in the first alone where [prompts] has too few to hold any out.
    """
    words = stage.config.prompts
    cases = [("plain", "", "auto", rows)]
    for mode in template.MODES:
        told = {"seen": wishes.trained(words, mode), "unseen": wishes.tested(words, mode)}
        if told["seen"] == told["unseen"]:
            del told["unseen"]
        for wording, sentences in told.items():
            pairs = zip(rows, wishes.spread(sentences, len(rows), stage.seed), strict=True)
            asked = [queries.with_wish(row, wish) | {"wish": wish} for row, wish in pairs]
            cases.append((f"told {mode}", wording, "auto", asked))
    return cases + [(f"forced {mode}", "", mode, rows) for mode in template.MODES]


def _obeyed(cases: pd.DataFrame) -> dict[str, float]:
    """Shares of the wishes that are obeyed, by mode: in all words, and in those not trained on."""
    found = {}
    for mode in template.MODES:
        told = cases[cases["case"] == f"told {mode}"]
        for key, part in (("", told), ("unseen_", told[told["wording"] == "unseen"])):
            if len(part):
                found[f"obeys_{key}{mode}"] = part["mode"].eq(mode).mean().item()
    return found


def teacher_reply(stage: StageRun, row: dict) -> str:
    """What the reasoning teacher answers to a query, greedily (the other model of Figure 10)."""
    return teachers.load(stage, "on").respond([row])[0][0]


@work
def run(stage: StageRun) -> dict[str, float]:
    """Measure section 6's claims over many queries; writes cases.jsonl and steps.jsonl.

    Settings [case_studies]: prompts, agents, repository, memory, temperature, max_new_tokens.
    Returns headline figures; without `agent_steps_reached` where no agent was run (`no_agents` says
    why).
    """
    s, talk = stage.settings, chat.load(stage)
    rows = queries.load(stage.config, s.prompts, stage.seed + 1, "eval")
    limits = {"max_new_tokens": s.max_new_tokens, "temperature": s.temperature}
    stage.forget_after(-1, "cases")
    frames = []
    for case, wording, arm, asked in _asked(stage, rows):
        title = f"{case}, {wording} wording" if wording else case
        frame = run_arm(stage, talk.model, talk.tokenizer, asked, arm, title=title, **limits)
        said = [row.get("wish") for row in asked]
        frames.append(with_flags(frame.assign(case=case, wording=wording, wish=said)))
        think_on, tokens = frames[-1]["thinks"].mean(), frame["tokens"].mean()
        stage.log(phase="cases", case=title, think_on=think_on, tokens=tokens)
    walked = [] if no_agents(stage) else _walk(stage, talk, s.agents, **limits)
    frames.append(teacher_arm(stage, rows, "on", talk.tokenizer).assign(case="teacher"))
    cases, steps = pd.concat(frames, ignore_index=True), step_frame(walked)
    if stage.writes:
        cases.to_json(stage.dir / "cases.jsonl", orient="records", lines=True)
        steps.to_json(stage.dir / "steps.jsonl", orient="records", lines=True)
    return _obeyed(cases) | (
        {"agent_steps_reached": steps["reached"].mean().item()} if walked else {}
    )


def no_agents(stage: StageRun) -> str:
    """Why this profile's model is given no agent's task, in one sentence; empty where it is."""
    if stage.settings.repository or stage.config.model.queries == "nano":
        return ""
    return (
        "No agent is run: nano's house speaks like the nano world's queries, and model.queries is "
        f"{stage.config.model.queries}; name a folder in case_studies.repository."
    )


def one_agent(stage: StageRun, talk: Chat) -> str:
    """An agent's four steps, greedily, as HTML; or why there is none."""
    if reason := no_agents(stage):
        return reason
    (steps,) = _walk(stage, talk, 1, max_new_tokens=stage.settings.max_new_tokens)
    return transcript.html(trajectory(steps), "An agent's four steps")


def _errands(stage: StageRun, n: int) -> Sequence[Errand]:
    if folder := stage.settings.repository:
        return repository.errands(root() / folder, n, stage.seed)
    from katlab.tasks.nano import house  # takes a second that a repository need not

    return house.errands(n, stage.seed)


def _walk(stage: StageRun, talk: Chat, n: int, **limits) -> list[list[Step]]:
    errands, memory = _errands(stage, n), stage.settings.memory
    bar = stage.bar(len(errands[0].steps) * n, "agents at work")
    walked = agents(talk, errands, seed=stage.seed, memory=memory, on_step=bar.to, **limits)
    bar.close()
    return walked


def results(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The graded replies of every case and the agents' steps that `run` left in a folder."""
    cases = pd.DataFrame(read_jsonl(folder / "cases.jsonl"))
    return cases, pd.DataFrame(read_jsonl(folder / "steps.jsonl"), columns=STEP)


def step_frame(walked: list[list[Step]]) -> pd.DataFrame:
    """One row per step: id (the agent), step, asks, mode, thinks, reached, tokens, problem."""
    rows = [
        {
            "id": agent,
            "step": number,
            "asks": step.asks,
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
