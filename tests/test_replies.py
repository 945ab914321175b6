"""Teachers' replies in every form: where the thought ends, where none is, where it stands apart.

Each table is one kind of case; a further case is one more row.
"""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_template import byte_tokenizer

from katlab import template
from katlab.dual_regime_data.tagging import tag
from katlab.generation import local
from katlab.teachers import LocalResponder, criticize, direct, models, split_thought
from katlab.teachers import with_thought as rounds

THOUGHT = {  # reply -> (thought, answer)
    "<think>\n3+4=7\n</think>\n\n7": ("3+4=7", "7"),
    "<think>3+4=7</think>7": ("3+4=7", "7"),
    "  <think>\n3+4=7\n</think>\n7\n": ("3+4=7", "7"),
    # The prompt opened it, and the reply only closes it …
    "3+4=7\n</think>\n\n7": ("3+4=7", "7"),
    "3+4=7.</think>7": ("3+4=7.", "7"),
    "Easy. </think>\n7": ("Easy.", "7"),
    "It's 3+4=7, isn't it?\n</think>\n\n7": ("It's 3+4=7, isn't it?", "7"),
    # … or opens it again.
    "<think>\n<think>\n3+4=7\n</think>\n\n7": ("3+4=7", "7"),
    # Tags that thought or answer speak of are their content.
    "<think>\na\n</think>\n\nClose it with `</think>`.": ("a", "Close it with `</think>`."),
    "<think>\na\n</think>\n\nClose it with </think>": ("a", "Close it with </think>"),
    "a\n</think>\n\n<think> is a tag.": ("a", "<think> is a tag."),
    "<think>\nWhat is `</think>`?\n</think>\n\nA tag.": ("What is `</think>`?", "A tag."),
    "<think>\nIs </think> HTML?\n</think>\n\nNo.": ("Is </think> HTML?", "No."),
    "<think>\n```\n</think>\n```\nSo?\n</think>\n\nNo.": ("```\n</think>\n```\nSo?", "No."),
    "<think>\nOnce <think> opens it\n</think>\n\nNo.": ("Once <think> opens it", "No."),
    "<think>\n```py\nx = 1\n</think>\n\n```py\nx = 1\n```": ("```py\nx = 1", "```py\nx = 1\n```"),
    # All of it in a line, or closed behind a quotation mark.
    "<think> 3+4=7 </think> 7": ("3+4=7", "7"),
    '<think>\nIt ends in "</think>\n\n7': ('It ends in "', "7"),
    # Cut off before it ends, it leaves no answer.
    "<think>\nOkay, let me see": ("Okay, let me see", ""),
    "<think>\na\n</think>": ("a", ""),
}
NO_THOUGHT = {  # reply -> answer
    "7": "7",
    " 7\n": "7",
    "": "",
    "<think>\n\n</think>\n\n7": "7",
    "<think></think>7": "7",
    "</think>\n\n7": "7",
    "<think>": "",
    "In HTML, </think> is unknown.": "In HTML, </think> is unknown.",
    "It ends with </think>": "It ends with </think>",
    'The "</think>" tag ends it.': 'The "</think>" tag ends it.',
    "R1 writes\n<think>\na\n</think>\n\nfirst.": "R1 writes\n<think>\na\n</think>\n\nfirst.",
    "```\na\n</think>\n\n7\n```": "```\na\n</think>\n\n7\n```",
    "<think> opens a thought.": "<think> opens a thought.",
}
APART = [  # a message, (thought, answer)
    ({"content": "7", "reasoning_content": "3+4=7"}, ("3+4=7", "7")),
    ({"content": "7\n", "thinking": "3+4=7\n"}, ("3+4=7", "7")),
    ({"content": "7", "reasoning": "3+4=7", "reasoning_content": None}, ("3+4=7", "7")),
    ({"content": [{"type": "text", "text": "7"}], "reasoning_content": "a"}, ("a", "7")),
    ({"content": "Use `</think>`.", "reasoning_content": "a"}, ("a", "Use `</think>`.")),
    ({"content": "<think>\na\n</think>\n\n7", "reasoning_content": None}, ("a", "7")),
    ({"content": "7", "reasoning_content": " \n"}, (None, "7")),
    (
        {"content": [{"type": "thinking", "thinking": "a"}, {"type": "text", "text": "7"}]},
        ("a", "7"),
    ),
    ({"content": [{"type": "reasoning", "text": "a"}, {"type": "text", "text": "7"}]}, ("a", "7")),
    (
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, "7"]},
        ("a", "7"),
    ),
    ({"content": "<think>\n\n</think>\n\n7", "reasoning_content": "a"}, ("a", "7")),
    ({"content": "7", "thinking": {"content": "a"}}, ("a", "7")),
    ({"content": "7"}, (None, "7")),
    ({"content": None, "reasoning_content": "a"}, ("a", "")),
]


@pytest.mark.parametrize("reply", THOUGHT)
def test_thought_and_answer_are_told_apart(reply):
    assert split_thought(reply) == THOUGHT[reply]


@pytest.mark.parametrize("reply", NO_THOUGHT)
def test_a_reply_without_a_thought_has_none(reply):
    assert split_thought(reply) == (None, NO_THOUGHT[reply])


@pytest.mark.parametrize("reply, parts", APART)
def test_a_thought_may_stand_apart(reply, parts):
    assert split_thought(reply) == parts


said = st.lists(st.sampled_from(["so", "42", "`x`", *template.TAGS]), max_size=6)


@given(said, said, st.booleans())
def test_a_thought_is_split_whatever_it_and_its_answer_speak_of(thinks, says, opens):
    thought, answer = " ".join(["I", *thinks, "see."]), " ".join(["It", *says, "is."])
    if not opens and "<think>" in thinks:
        return  # a thought of which only the prompt has the opening tag speaks of none
    reply = "<think>\n" * opens + f"{thought}\n</think>\n\n{answer}"
    assert split_thought(reply) == (thought, answer)


def row(answer: str = "7") -> dict:
    return {
        "messages": [{"role": "user", "content": "3+4?"}],
        "tools": None,
        "verifier": "math",
        "reference": answer,
    }


class Says:
    """A Responder that always says the same."""

    name = "says"

    def __init__(self, reply):
        self.reply = reply

    def respond(self, requests, n=1, temperature=0.0, seed=0):
        return [[self.reply] * n for _ in requests]


CRITIC = {
    "7": "there is no thought",
    "<think>\n\n</think>\n\n7": "there is no thought",
    "<think>\n3+4=8\n</think>\n\n7": "3+4=8 does not hold",
    "<think>\n3+4=7": "the answer is not verified",
    "<think>\n3+4=7\n</think>\n\n8": "the answer is not verified",
    "3+4=7\n</think>\n\n7": None,
}


@pytest.mark.parametrize("reply", CRITIC)
def test_the_critic_says_what_a_reply_lacks(reply):
    assert criticize([row()], [reply]) == [CRITIC[reply]]


def test_messages_of_an_endpoint_become_rows():
    reply = {"content": "7", "reasoning_content": "3+4=7"}
    [kept] = rounds([row()], Says("<think>\n\n</think>\n\n6"), Says(reply), rounds=1, seed=0)
    assert (kept["thought"], kept["answer"], kept["draft"]) == ("3+4=7", "7", "6")
    assert kept["corrected"] is True


@pytest.mark.parametrize("reply", ["7", "<think>\n\n</think>\n\n7", {"content": "7"}])
def test_a_direct_answer_has_no_thought_before_it(reply):
    [kept] = direct([row()], Says(reply), samples=2, seed=0)
    assert (kept["answer"], kept["thought"], kept["pass_rate"]) == ("7", None, 1.0)


def test_tags_are_read_from_the_answer_not_from_the_thought():
    reply = "<think>\nlevel 5? No.\n</think>\n\nmath, level 1"
    [tagged] = tag([row()], Says(reply), "Tags?", r"(?P<domain>\w+)?,? ?level (?P<level>\d)")
    assert tagged["tags"] == {"domain": "math", "level": 1}


def reply_of(tokenizer, monkeypatch, prompt: str, reply: str) -> str:
    """What the profile's teacher replies where its model says `reply` to the framed prompt."""
    tokenizer.chat_template = prompt
    ids = tokenizer(reply, add_special_tokens=False)["input_ids"]
    monkeypatch.setattr(models, "load_teacher", lambda config, mode: (None, tokenizer))
    monkeypatch.setattr(local, "sample", lambda model, tok, prompts, **how: [ids] * len(prompts))
    section = SimpleNamespace(teacher_on="a/r1", sample_batch=4, engine="transformers")
    stage = SimpleNamespace(
        config=SimpleNamespace(model=section),
        settings=SimpleNamespace(max_new_tokens=8),
        bar=lambda *_: SimpleNamespace(to=None, close=lambda: None),
        journal=lambda name: None,
    )
    [[text]] = LocalResponder(stage, "on").respond([row()])
    return text


FRAMES = {  # the end of the prompt -> what the model goes on with
    "A:": "<think>\n3+4=7\n</think>\n\n7<|im_end|>",
    "A:<think>\n": "3+4=7\n</think>\n\n7<|im_end|>",
    "A:<think>": "3+4=7</think>7<|im_end|>",
    "A: <think>\n\n": "<think>\n3+4=7\n</think>\n\n7<|im_end|>",
}


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("prompt", FRAMES)
def test_prompt_or_reply_may_open_the_thought(prompt, special, monkeypatch):
    """Whether the tags are special tokens of the teacher's tokenizer or not."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=special)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    text = reply_of(tokenizer, monkeypatch, prompt, FRAMES[prompt])
    assert split_thought(text) == ("3+4=7", "7")
