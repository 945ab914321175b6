import json
import random

import pandas as pd
import pytest
from conftest import CHECKOUT

from katlab import UserError, lab, template
from katlab.case_studies import agents, figures, verdict
from katlab.case_studies import stage as case_studies
from katlab.conversation import chat, transcript
from katlab.generation import local
from katlab.lab import StageRun
from katlab.tasks import repository, wishes
from katlab.tasks.nano import house, world
from katlab.tasks.nano.house import House

ROWS = world.queries(30, seed=0, split="eval")
WORDS = lab.load_profile("nano").prompts
NAMES_MODE = WORDS.rationale_pattern
ASKED = [{"role": "user", "content": "Compute 3+4."}]
HEAT = '<tool_call>\n{{"name": "set_heat", "arguments": {{"level": {}}}}}\n</tool_call>'


def scripted(monkeypatch, tokenizer, speak) -> list[str]:
    """Let `sample` answer each prompt with `speak(prompt)`; gives back the prompts it will see."""
    seen = []

    def sample(model, tok, prompts, *, max_new_tokens, **_):
        seen.extend(prompts)
        return [tok(speak(prompt), add_special_tokens=False)["input_ids"] for prompt in prompts]

    monkeypatch.setattr(local, "sample", sample)
    return seen


def quiet(tokenizer) -> chat.Chat:
    """Somebody to talk to whose replies are scripted, so it needs no weights."""
    return chat.Chat(None, tokenizer, WORDS)


def said(mode: str, answer: str, thought: str | None = None, judge: str = "so") -> str:
    return template.judged(mode, judge) + template.body(mode, answer, thought) + "<|im_end|>"


# ---- replies


def test_reply_has_its_parts_apart(monkeypatch, tokenizer):
    text = said("on", "7", "3+4=7", "math, think on.")
    seen = scripted(monkeypatch, tokenizer, lambda prompt: text)
    got = quiet(tokenizer).reply(ASKED)
    assert seen == [template.prompt(tokenizer, ASKED)]
    assert (got.judge, got.thought, got.answer) == ("math, think on.", "3+4=7", "7")
    assert (got.mode, got.forced, got.problem) == ("on", "auto", None)
    assert got.tokens["thought"] == len(tokenizer("\n3+4=7\n")["input_ids"])
    assert got.tokens["all"] == len(tokenizer(text)["input_ids"])


@pytest.mark.parametrize("mode", template.MODES)
def test_a_forced_mode_is_prefilled_and_cannot_be_refused(model, tokenizer, mode):
    got = chat.Chat(model, tokenizer, WORDS).reply(ASKED, mode, max_new_tokens=5)
    assert got.mode == mode == got.forced
    assert got.judge == vars(WORDS)[f"forced_{mode}"]
    assert got.tokens["all"] >= got.tokens["judge"] > 0


def test_forced_prompt_ends_after_the_decision(monkeypatch, tokenizer):
    seen = scripted(monkeypatch, tokenizer, lambda prompt: "<answer>\n7\n</answer><|im_end|>")
    got = quiet(tokenizer).reply(ASKED, "off")
    assert seen[0].endswith(f"<judge>\n{WORDS.forced_off}\n</judge>\n\n<think_off>\n")
    assert (got.answer, got.problem) == ("7", None)


def test_unknown_mode_names_the_remedy(tokenizer):
    with pytest.raises(UserError, match="auto, on or off"):
        quiet(tokenizer).reply(ASKED, "fast")


def test_tools_reach_the_prompt(monkeypatch, tokenizer):
    seen = scripted(monkeypatch, tokenizer, lambda prompt: said("off", "7"))
    quiet(tokenizer).reply(ASKED, tools=[House({"heat": 3}).tool("heat")])
    assert "<tools>" in seen[0] and '"set_heat"' in seen[0]


# ---- the house and its agents


def test_house_executes_calls_and_says_what_is_wrong():
    house = House({"heat": 7, "fan": 2})
    assert house.execute(HEAT.format(9)) == {"heat": 9}
    assert house.levels == {"heat": 9, "fan": 2}
    assert "whole number" in house.execute(HEAT.format(100))["error"]
    assert "whole number" in house.execute(HEAT.format("true"))["error"]
    assert "whole number" in house.execute(HEAT.format('"9"'))["error"]
    assert "no tool" in house.execute(HEAT.format(9).replace("heat", "door"))["error"]
    assert "0 tool calls" in house.execute("done")["error"]
    assert "2 tool calls" in house.execute(HEAT.format(1) * 2)["error"]
    assert "not closed" in house.execute("<tool_call>")["error"]
    assert house.levels == {"heat": 9, "fan": 2}


def test_requests_look_like_the_tool_use_queries_and_add_up():
    rng = random.Random(0)
    row = next(r for r in ROWS if r["category"] == "tool_use")
    dial = row["tools"][0]["name"].removeprefix("set_")
    house = House({dial: 25})
    assert house.tool(dial) == row["tools"][0]
    for changes in (1, 2, 3):
        text, wanted = house.request(rng, dial, changes)
        assert text.startswith(f"The {dial} is at 25. Set it to 25")
        sum_ = text.rpartition("to ")[2].removesuffix(".")
        assert eval(sum_) == wanted and 0 <= wanted <= 99
        assert len([c for c in sum_ if c in "+-"]) == changes


def solver(prompt: str) -> str:
    """A perfect agent: reads the last request and calls the tool; thinks when it is long."""
    request = prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]
    dial, asked = request.split()[1], request.rpartition("to ")[2].removesuffix(".")
    call = HEAT.format(eval(asked)).replace("heat", dial)
    return said("on", call, "hm") if len(asked) > 6 else said("off", call)


def test_a_perfect_agent_reaches_every_step_and_remembers(monkeypatch, tokenizer):
    seen = scripted(monkeypatch, tokenizer, solver)
    walked = agents.agents(quiet(tokenizer), house.errands(3, seed=1), seed=1, memory=1)
    assert [len(steps) for steps in walked] == [len(house.CHANGES)] * 3
    frame = case_studies.step_frame(walked)
    assert frame["reached"].all()
    assert frame["thinks"].tolist() == [False, True, False, True] * 3
    # Each request starts from what the last call left; one earlier exchange stays in the prompt.
    for before, after in zip(walked[0], walked[0][1:], strict=False):
        (level,) = before.result.values()
        assert f"is at {level}." in after.reply.messages[-1]["content"]
        assert json.loads(after.reply.messages[-2]["content"]) == before.result
        assert len(after.reply.messages) == 4
    assert "<tool_response>" in seen[-1] and "<tool_response>" not in seen[0]


def test_an_agent_that_never_calls_reaches_nothing(monkeypatch, tokenizer):
    scripted(monkeypatch, tokenizer, lambda prompt: said("off", "no"))
    walked = agents.agents(quiet(tokenizer), house.errands(2, seed=0), memory=0)
    assert not case_studies.step_frame(walked)["reached"].any()
    assert all(len(step.reply.messages) == 1 for steps in walked for step in steps)
    assert walked[0][0].result == {"error": "0 tool calls where one is right"}


# ---- transcripts


def turns() -> list:
    reply = chat.Reply(
        messages=ASKED,
        forced="off",
        mode="off",
        problem="unclosed",
        judge="a < b & c",
        thought=None,
        answer="```x```<script>",
        tokens={"judge": 4, "thought": 0, "answer": 6, "all": 12},
    )
    return [ASKED[0], reply, {"role": "tool", "content": '{"heat": 9}'}]


def test_html_escapes_and_counts():
    page = transcript.html(turns(), "A <case>")
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &lt; b &amp; c" in page
    assert "A &lt;case&gt;" in page
    for text in (
        "<b>User</b>",
        "<b>Judge</b>",
        "<b>Answer</b>",
        "<b>Tool</b>",
        "4 tokens",
        "forced by program",
        "malformed: unclosed",
        "6 tokens, 12 in all",
    ):
        assert text in page
    assert "<b>Thought</b>" not in page


def test_markdown_fences_outlast_their_text():
    page = transcript.markdown(turns(), "A case")
    assert page.startswith("### A case\n")
    assert "````\n```x```<script>\n````" in page
    assert "**Judge** (forced by program, think off, 4 tokens)" in page


def test_a_trajectory_alternates_request_reply_and_result(monkeypatch, tokenizer):
    scripted(monkeypatch, tokenizer, solver)
    ((*steps,),) = agents.agents(quiet(tokenizer), house.errands(1, seed=0))
    kinds = [kind for kind, _, _ in transcript.boxes(agents.trajectory(steps))]
    assert (
        kinds
        == (["User", "Judge", "Answer", "Tool"] + ["User", "Judge", "Thought", "Answer", "Tool"])
        * 2
    )


# ---- the stage


def begun(tmp_path, student=None, **overrides) -> StageRun:
    """Stage 07 with a few replies of few tokens; `student` (model, tokenizer) comes from 05."""
    small = dict(prompts=12, agents=2, memory=1, temperature=1.0, max_new_tokens=4)
    overrides |= {f"case_studies.{key}": value for key, value in small.items()}
    if student:
        final = StageRun.create(tmp_path, "r", "05_step_srpo")
        for part in student:
            part.save_pretrained(final.checkpoints / "student")
        final.finish()
        overrides["model.teacher_on"] = str(final.checkpoints / "student")
    return StageRun.create(tmp_path, "r", "07_case_studies", overrides=overrides)


def test_showcases_take_the_first_fitting_rows(tmp_path, monkeypatch, tokenizer):
    scripted(monkeypatch, tokenizer, lambda prompt: said("off", "7"))
    cases = case_studies.showcases(begun(tmp_path), quiet(tokenizer), ROWS)
    (simple, _), (hard, _), (told_off, _), (told_on, _) = cases.values()
    assert simple == next(r for r in ROWS if r["difficulty"] == 1)
    assert hard == next(r for r in ROWS if r["difficulty"] == 5)
    for mode, row in (("off", told_off), ("on", told_on)):
        assert row["messages"][-1]["content"].endswith(f" {wishes.tested(WORDS, mode)[0]}")


def cases_of(model_of: dict[str, str], unseen: str = "") -> pd.DataFrame:
    """Graded replies where every case has one mode; d(ifficulty) decides it for "gate".

    A told case has two wordings; `unseen` is what the model does in those it was not trained on.
    """
    rows = []
    told = [(case, mode, "seen") for case, mode in model_of.items()]
    told += [(case, unseen or mode, "unseen") for case, mode, _ in told if "told" in case]
    for case, mode, wording in told:
        for row in ROWS:
            own = ("off" if row["difficulty"] == 1 else "on") if mode == "gate" else mode
            rows.append(
                {
                    "id": row["id"],
                    "difficulty": row["difficulty"],
                    "case": case,
                    "wording": wording,
                    "wish": f"{wording} {row['difficulty']}" if "told" in case else None,
                    "mode": own,
                    "thinks": own == "on",
                    "correct": True,
                    "problem": None,
                    "well_formed": True,
                    "tokens": 90 if own == "on" else 30,
                    "completion": f"think {own}.</judge>",
                }
            )
    return pd.DataFrame(rows)


CASES = {
    "plain": "gate",
    "told on": "on",
    "told off": "off",
    "forced on": "on",
    "forced off": "off",
    "teacher": "on",
}
STEPS = pd.DataFrame(
    {
        "id": [0, 0, 1, 1],
        "step": [1, 2, 1, 2],
        "asks": ["1 change", "6 changes"] * 2,
        "mode": ["off", "on"] * 2,
        "thinks": [False, True] * 2,
        "reached": [True] * 4,
        "tokens": 30,
        "problem": None,
    }
)


def claims(rows) -> list:
    return [row for row in rows if row.kind != "fact"]


def test_a_model_that_obeys_holds_every_claim():
    rows = verdict.rows(cases_of(CASES), STEPS, NAMES_MODE)
    assert [row.held for row in claims(rows)] == [True] * 11
    assert rows[1].measured == "-67% [-67%, -67%], n = 6"


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"plain": "on"}, ["simple query", "fewer tokens"]),
        ({"plain": "off"}, ["hard query"]),
        ({"told off": "on"}, ["no thought", "wish not to think"]),
        ({"told on": "gate"}, ["deeper thought", "wish to think"]),
    ],
)
def test_a_model_that_does_not_fails_just_there(change, failing):
    rows = verdict.rows(cases_of(CASES | change), STEPS, NAMES_MODE)
    failed = [row.claim for row in claims(rows) if not row.held]
    assert len(failed) == len(failing)
    assert all(word in claim for word, claim in zip(failing, failed, strict=True))


def test_agents_that_never_switch_or_miss_their_goal_fail():
    idle = STEPS.assign(thinks=False, reached=[True, False, False, False])
    failed = [
        row.claim for row in claims(verdict.rows(cases_of(CASES), idle, NAMES_MODE)) if not row.held
    ]
    assert len(failed) == 2 and "switches" in failed[0] and "tool calls" in failed[1]


def test_a_model_that_writes_no_format_holds_nothing():
    broken = cases_of(dict.fromkeys(CASES, None)).assign(correct=False, well_formed=False)
    rows = verdict.rows(broken, STEPS.assign(thinks=False, reached=False), NAMES_MODE)
    assert [row.held for row in claims(rows)] == [None] * 10 + [False]


def test_without_agents_their_claims_are_not_applicable():
    rows = verdict.rows(cases_of(CASES), case_studies.step_frame([]), NAMES_MODE)
    assert [row.held for row in claims(rows)] == [True] * 3 + [None] * 2 + [True] * 6
    figures.control_figure(cases_of(CASES), case_studies.step_frame([]))
    assert figures.takeaway({"obeys_on": 1.0, "obeys_off": 0.5}, STEPS) == (
        "Words set the mode in 100% (on) and 50% (off) of the queries."
    )


def test_by_case_counts_prompts_and_what_was_not_scored():
    cases = cases_of(CASES)
    cases["correct"] = cases["correct"].astype(object)
    cases.loc[cases["case"].eq("plain") & cases["difficulty"].eq(5), "correct"] = None
    table = figures.by_case(cases)
    assert table["prompts"].tolist() == [30] * 6
    assert table["unscorable"].tolist() == [6, 0, 0, 0, 0, 0]
    assert table.loc["plain", "think-on rate"].startswith("80.0%")
    assert table.loc["plain", "accuracy"].startswith("100.0%")


def test_run_writes_what_results_reads(tmp_path, model, tokenizer):
    stage = begun(tmp_path, (model, tokenizer))
    headline = case_studies.run(stage)
    cases, steps = case_studies.results(stage.dir)
    assert len(cases) == 8 * 12 and len(steps) == 2 * len(house.CHANGES)
    assert steps["reached"].mean() == headline["agent_steps_reached"]
    assert len(claims(verdict.rows(cases, steps, NAMES_MODE))) == 11
    assert isinstance(case_studies.teacher_reply(stage, ROWS[0]), str)
    assert case_studies.one_agent(stage, chat.load(stage)).count("<b>User</b>") == 4
    assert case_studies.run(stage) == headline
    logged = stage.metrics()
    (stage.dir / "result.json").unlink()  # as a kill just before the end leaves it
    again = type(stage).open(stage.dir)
    assert case_studies.run(again) == headline and again.metrics() == logged


def test_what_was_answered_is_not_asked_again(tmp_path, model, tokenizer, monkeypatch):
    """A kill after the last reply: cases, teacher and agents are all on disk."""
    stage = begun(tmp_path, (model, tokenizer))
    headline = case_studies.run(stage)
    assert chat.load(stage).batch_size == stage.config.model.sample_batch
    (stage.dir / "result.json").unlink()
    monkeypatch.setattr(local, "generate", None)
    assert case_studies.run(StageRun.open(stage.dir)) == headline


def test_another_tasks_model_is_asked_to_turn_no_dials(tmp_path, model, tokenizer):
    lab.write_jsonl(tmp_path / "own.jsonl", [row | {"split": "eval"} for row in ROWS])
    stage = begun(tmp_path, (model, tokenizer), **{"model.queries": str(tmp_path / "own.jsonl")})
    headline = case_studies.run(stage)
    cases, steps = case_studies.results(stage.dir)
    assert list(headline) == ["obeys_on", "obeys_unseen_on", "obeys_off", "obeys_unseen_off"]
    assert len(cases) == 8 * 12 and steps.empty
    assert "own.jsonl" in case_studies.one_agent(stage, None)
    assert len(claims(verdict.rows(cases, steps, NAMES_MODE))) == 11


def test_another_tasks_model_is_sent_into_a_repository(tmp_path, model, tokenizer):
    lab.write_jsonl(tmp_path / "own.jsonl", [row | {"split": "eval"} for row in ROWS])
    own = {"model.queries": str(tmp_path / "own.jsonl")}
    own |= {"case_studies.repository": str(CHECKOUT / "data_samples" / "repository")}
    stage = begun(tmp_path, (model, tokenizer), **own)
    headline = case_studies.run(stage)
    cases, steps = case_studies.results(stage.dir)
    assert headline["agent_steps_reached"] == steps["reached"].mean()
    assert list(steps["asks"]) == [*repository.Errand.steps] * 2
    shown = case_studies.one_agent(stage, chat.load(stage))
    assert "A repository has these files" in shown and shown.count("<b>User</b>") == 4
    figures.control_figure(cases, steps)


# ---- wishes in seen and unseen words


def test_every_held_out_wish_is_told_and_none_that_was_trained_on(tmp_path):
    rows = world.queries(120, seed=0, split="eval")
    for case, wording, _, asked in case_studies._asked(begun(tmp_path), rows):
        mode = case.removeprefix("told ")
        told = {"seen": wishes.trained, "unseen": wishes.tested}.get(wording)
        assert {row.get("wish") for row in asked} == (set(told(WORDS, mode)) if told else {None})
        for row, plain in zip(asked, rows, strict=True):
            wished = f" {row['wish']}" if told else ""
            assert row["messages"][-1]["content"] == plain["messages"][-1]["content"] + wished


def test_seen_and_unseen_words_are_counted_apart():
    table = figures.by_wording(cases_of(CASES, unseen="gate"))
    assert list(table.index) == [
        (f"told {mode}", wording) for mode in ("off", "on") for wording in ("seen", "unseen")
    ]
    # Of 30 prompts 24 are above difficulty 1. Wilson by hand: 0.2 of 30, z = 1.96.
    assert table["obeyed"].tolist() == [
        "100.0% [88.6%, 100.0%]",
        "20.0% [9.5%, 37.3%]",
        "100.0% [88.6%, 100.0%]",
        "80.0% [62.7%, 90.5%]",
    ]
    assert table["sentences"].tolist() == [5] * 4
    assert table["obeyed least"].tolist()[3] == "unseen 1 (0%)"


def test_too_few_wishes_are_tested_as_they_were_trained_and_so_it_is_said(
    tmp_path, model, tokenizer
):
    own = {"prompts.directive_on": ["Reason."], "prompts.directive_off": ["Quick!", "At once."]}
    stage = begun(tmp_path, (model, tokenizer), **own)
    headline = case_studies.run(stage)
    assert not any("unseen" in name for name in headline)
    cases, steps = case_studies.results(stage.dir)
    assert set(cases["wish"].dropna()) == {"Reason.", "Quick!", "At once."}
    never = [
        row for row in verdict.rows(cases, steps, NAMES_MODE) if "never trained on" in row.claim
    ]
    assert [(row.measured, row.held) for row in never] == [("all words were trained on", None)] * 2
    assert figures.wording_takeaway(headline) == (
        "Too short to hold a sentence out: prompts.directive_on and prompts.directive_off; what is "
        "tested there was trained on."
    )
