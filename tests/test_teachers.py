"""Teachers: how they are loaded, what is read from their replies, rejection and the critic."""

import copy

import pytest
import torch
from responders import Scripted

from katlab import models, teachers, weights
from katlab.generation import local
from katlab.lab import load_profile
from katlab.tasks.nano import world

ROWS = world.queries(120, seed=7, split="stage_1")


@pytest.mark.parametrize("where", ["deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "package:weights"])
def test_a_teacher_is_loaded_as_students_are(stage, monkeypatch, model, tokenizer, where):
    """A hub id or a package, in the profile's dtype and quantisation, on the device of all."""
    package = stage.dir / "weights"
    package.mkdir()
    for name in ("__init__.py", "config.json"):
        (package / name).touch()
    monkeypatch.syspath_prepend(stage.dir)
    asked = {}
    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", lambda folder: tokenizer)
    monkeypatch.setattr(
        models.AutoModelForCausalLM,
        "from_pretrained",
        lambda folder, **how: asked.update(how, folder=folder) or model,
    )
    stage.config.model.teacher_on = where
    stage.config.model.dtype = "bfloat16"
    stage.config.model.teacher_quantize = "4bit"
    stage.settings.max_new_tokens = 4
    teacher = teachers.load(stage, "on")
    assert not asked, "weights are loaded at the first request"
    [[reply]] = teacher.respond(ROWS[:1])
    assert isinstance(reply, str) and teacher.name == where.rpartition("/")[2]
    assert asked["folder"] == weights.locate(where)
    assert asked["dtype"] == torch.bfloat16 and asked["device_map"] == models.device()
    assert asked["quantization_config"].load_in_4bit


@pytest.mark.parametrize("opens", [True, False])
def test_a_thought_that_the_teachers_template_opens_is_split(stage, monkeypatch, tokenizer, opens):
    """DeepSeek-R1's template ends the prompt with <think>; its reply then only closes the tag."""
    teachers_own = copy.deepcopy(tokenizer)
    teachers_own.chat_template = "{{ messages[-1].content }}\n" + "<think>\n" * opens
    reply = "<think>\n" * (not opens) + "1+1=2\n</think>\n\n2<|im_end|>"
    ids = teachers_own(reply, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(teachers.models, "load_teacher", lambda config, mode: (None, teachers_own))
    monkeypatch.setattr(local, "sample", lambda model, tok, prompts, **_: [ids] * len(prompts))
    [[got]] = teachers.load(stage, "on").respond(ROWS[:1])
    assert teachers.split_thought(got) == ("1+1=2", "2")


def test_a_teacher_without_queries_is_not_loaded(stage):
    """Where every vote is for one mode, the other mode's teacher has nothing to answer."""
    teacher = teachers.load(stage, "off")
    assert teachers.direct([], teacher, 2, 0) == []
    assert teachers.with_thought([], teacher, teacher, 2, 0) == []
    assert "loaded" not in vars(teacher)


def test_direct_rejects_wrong_answers_and_keeps_the_most_frequent_right_one():
    rows = [row for row in ROWS if row["category"] == "math"][:3]
    replies = {0: ["{}", "{}", "0.5"], 1: ["no", "no", "no"], 2: ["{}.0", "x", "{}"]}
    responder = Scripted(
        lambda row, k: replies[[r["id"] for r in rows].index(row["id"])][k].format(row["direct"])
    )
    kept = teachers.direct(rows, responder, samples=3, seed=0)
    assert [row["id"] for row in kept] == [rows[0]["id"], rows[2]["id"]]
    assert kept[0]["answer"] == rows[0]["direct"] and kept[0]["mode"] == "off"
    assert kept[0]["pass_rate"] == pytest.approx(2 / 3)


def test_critic_names_what_is_wrong():
    row = next(r for r in ROWS if r["category"] == "math")
    good = f"<think>\n{row['thought']}\n</think>\n\n{row['direct']}"
    assert teachers.criticize([row], [good]) == [None]
    assert teachers.criticize([row], [row["direct"]]) == ["there is no thought"]
    lie = f"<think>\n2+2=5\n</think>\n\n{row['direct']}"
    assert teachers.criticize([row], [lie]) == ["2+2=5 does not hold"]
    for true in ("10-3+2=9", "2*3+4=10", "1.5+2=3.5", "100-1+1=100"):
        fine = f"<think>\n{true}\n</think>\n\n{row['direct']}"
        assert teachers.criticize([row], [fine]) == [None], true
    wrong = f"<think>\n2+2=4\n</think>\n\n{int(row['direct']) + 1}"
    assert teachers.criticize([row], [wrong]) == ["the answer is not verified"]


def test_thinker_is_asked_again_only_where_the_critic_refused():
    rows = [r for r in ROWS if r["category"] == "math"][:4]
    tries = {row["id"]: 0 for row in rows}

    def think(row, k):
        tries[row["id"]] += 1
        right = row["id"] == rows[0]["id"] or tries[row["id"]] == 2
        answer = row["direct"] if right else "99999"
        return f"<think>\n1+1=2\n</think>\n\n{answer}"

    thinker = Scripted(think)
    kept = teachers.with_thought(rows, Scripted(lambda row, k: "0"), thinker, rounds=3, seed=0)
    assert thinker.asked == [4, 3]
    assert [row["rounds"] for row in kept] == [1, 2, 2, 2]
    assert all(row["draft"] == "0" for row in kept)


def test_queries_are_asked_in_the_profiles_words_and_kept_without_them():
    rows = [row for row in ROWS if row["category"] == "math"][:2]
    heard = []

    def say(row, k):
        heard.append(row["messages"][-1]["content"])
        return row["direct"]

    kept = teachers.direct(rows, Scripted(say), samples=1, seed=0, request="Answer only.")
    assert heard == [f"{row['messages'][-1]['content']}\nAnswer only." for row in rows]
    assert [row["messages"] for row in kept] == [row["messages"] for row in rows]
    heard.clear()

    def think(row, k):
        return f"<think>\n{row['thought']}\n</think>\n\n{say(row, k)}"

    kept = teachers.with_thought(rows, Scripted(say), Scripted(think), 1, 0, "Only.", "Think.")
    assert [text.rpartition("\n")[2] for text in heard] == ["Only."] * 2 + ["Think."] * 2
    assert [row["messages"] for row in kept] == [row["messages"] for row in rows]


@pytest.mark.parametrize(
    ("reply", "parts"),
    [
        ("12+3=15\n\nAnswer: 15", ("12+3=15", "15")),
        ("So x.\n\n**Answer:** 15", ("So x.", "15")),
        ("**Final Answer:** \\(15\\)\nFinal answer: 15", ("**Final Answer:** \\(15\\)", "15")),
        ("First.\nAnswer: 3\nNo.\nAnswer: 4", ("First.\nAnswer: 3\nNo.", "4")),
        ("Steps.\n#### Answer\n18", ("Steps.", "18")),
        ("<think>\nTags.\n</think>\n\nAnswer: 2", ("Tags.", "Answer: 2")),  # tags go first
        ("Answer: 15", (None, "Answer: 15")),
        ("The answer is 15.", (None, "The answer is 15.")),
        ("So:\n\\[\n\\boxed{12}\n\\]", ("So:\n\\[", r"\boxed{12}")),
        (
            "First \\boxed{3}, no.\nThus \\(\\boxed{\\frac{1}{\\sqrt{3}}}\\).",
            ("First \\boxed{3}, no.", r"\boxed{\frac{1}{\sqrt{3}}}"),
        ),
        (
            "Use max.\n```python\ndef f(a, b):\n    return max(a, b)\n```\nThis is\nright.",
            ("Use max.", "```python\ndef f(a, b):\n    return max(a, b)\n```"),
        ),
        ("Run:\n```\nprint(3 * 5)\n```\nIt is 15.", ("Run:\n```\nprint(3 * 5)\n```", "15")),
    ],
)
def test_a_thought_without_tags_is_found_by_the_profiles_patterns(reply, parts):
    patterns = load_profile("real-0.5b").prompts.reply_patterns
    assert teachers.split_thought(reply, patterns) == parts


def test_a_thought_that_a_pattern_found_is_kept_as_it_was_said():
    row = next(row for row in ROWS if row["category"] == "math")
    said = f"We see.\nAnswer: {row['direct']}"
    patterns = [r"(?P<thought>x)(?P<answer>y)", r"(?s)(?P<thought>.+)\nAnswer: (?P<answer>.+)"]
    direct, thinker = Scripted(lambda row, k: "0"), Scripted(lambda row, k: said)
    assert teachers.with_thought([row], direct, thinker, 1, 0) == []
    (kept,) = teachers.with_thought([row], direct, thinker, 1, 0, patterns=patterns)
    assert (kept["thought"], kept["answer"]) == ("We see.", row["direct"])
    assert kept["reply"] == said
    tagged = Scripted(lambda row, k: f"<think>\nWe see.\n</think>\n\n{row['direct']}")
    (kept,) = teachers.with_thought([row], direct, tagged, 1, 0, patterns=patterns)
    assert "reply" not in kept


def test_one_model_that_is_both_teachers_is_loaded_once(stage):
    off, on = teachers.pair(stage)
    assert off is not on
    stage.config.model.teacher_on = stage.config.model.teacher_off = "parent"
    off, on = teachers.pair(stage)
    assert off is on and off.name == "parent"
