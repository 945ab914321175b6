"""Histories and completions as people write them: what a message may be, and which tags count.

Each table is one kind of case; a further case is one more row.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_template import byte_tokenizer

from katlab import UserError, template
from katlab.rewards.tool_call import parse_calls

TOKENIZER = byte_tokenizer()
template.add_tags(TOKENIZER)
TAGS = template.Tags.of(TOKENIZER)
ASK = {"role": "user", "content": "q"}
FENCED = (
    "It writes\n```\n<judge>\nx\n</judge>\n\n<think_off>\n<answer>\n1\n</answer>\n```\nand stops."
)


def history(*messages: dict) -> str:
    """The prompt of a chat that ends with a question, from its first user turn on."""
    text = template.prompt(TOKENIZER, [ASK, *messages, ASK])
    return text.partition("<|im_start|>user\nq<|im_end|>\n")[2]


def kept(said) -> str:
    """What stays of an assistant's turn in the history."""
    text = history({"role": "assistant", "content": said})
    start, end = "<|im_start|>assistant\n", "<|im_end|>\n<|im_start|>user\nq<|im_end|>\n"
    return text.removeprefix(start).removesuffix(end + "<|im_start|>assistant\n<judge>\n")


def part(text: str) -> dict:
    return {"type": "text", "text": text}


PLAIN = [  # an ordinary answer stays as it is, whatever tags it speaks of
    "End the text with `<think_off>` to switch it off.",
    "A browser ignores </think> since HTML has no such tag.",
    "In HTML you close it with </think>.\nNothing follows.",
    'The parser looks for "</think>" and "<answer>".',
    "Models write <think> first, then </think>, then <answer>.",
    "<think> opens a thought, and </think> ends it.",
    "<answer> is the tag before the result.",
    "<think_on> asks for a thought.",
    "<judge> is the tag that comes first.",
    "<think>",
    "Use a pattern:\n```python\nre.sub('<think>.*</think>', '', text)\n```",
    "R1 writes\n<think>\nits thought\n</think>\n\nand then answers.",
    "Write it so:\n<answer>\n42\n</answer>\nand no more.",
    FENCED,
    "  leading and trailing blanks \n",
    "",
]
STRUCTURED = {  # judge, thought and tags go, the answer stays with every tag it speaks of
    "<think>6*7</think><answer>42</answer>": "42",
    "<think>\n6*7\n</think>\n\n42": "42",
    "6*7 is 42.\n</think>\n\n42": "42",
    "<think>\nAsked for `</think>`, a tag.\n</think>\n\nIt is `</think>`.": "It is `</think>`.",
    "<think>\n```\nx\n</think>\n\n```py\ny\n```": "```py\ny\n```",
    "<think>\nOkay, let me see": "",
    "<judge>\nEasy": "",
    "<judge>\nEasy\n</judge>\n\n<think_off>\n12": "12",
    "Easy</judge><think_off><answer>12</answer>": "12",
    "Does it ask for <think_on>?\n</judge>\n\n<think_off>\n<answer>\n12\n</answer>": "12",
    "<think_off>\n<answer>\nWrite:\n<answer>\n42\n</answer>\nDone.\n</answer>": (
        "Write:\n<answer>\n42\n</answer>\nDone."
    ),
    "<answer>\nClose it with `</answer>`, open with `<answer>`.\n</answer>": (
        "Close it with `</answer>`, open with `<answer>`."
    ),
    "<think_off>\n<answer>\nUse <think>x</think>.\n</answer>": "Use <think>x</think>.",
    "<answer>\n12": "12",
    "<answer> 12 </answer>": " 12 ",
    "<think_on>\n<think>\nWhat is </think> here?\n</think>\n\n<answer>\nIt.\n</answer>": "It.",
    f"<think_off>\n<answer>\n{FENCED}\n</answer>": FENCED,
}


@pytest.mark.parametrize("said", PLAIN)
def test_an_answer_that_speaks_of_tags_stays_whole(said):
    assert kept(said) == said


@pytest.mark.parametrize("said", STRUCTURED)
def test_tags_in_their_place_leave_the_answer(said):
    assert kept(said) == STRUCTURED[said]


def test_a_turn_before_the_generation_prompt_is_history_too():
    said = {"role": "assistant", "content": "<think>\nx\n</think>\n\n12"}
    assert template.prompt(TOKENIZER, [ASK, said]).endswith(
        "<|im_start|>assistant\n12<|im_end|>\n<|im_start|>assistant\n<judge>\n"
    )


@pytest.mark.parametrize("role", ["system", "user", "tool"])
def test_other_roles_are_never_cut(role):
    text = "<think>\nx\n</think>\n\n<answer>\n1\n</answer> </judge> <think_off>"
    messages = [{"role": role, "content": text}, ASK]
    assert text in template.prompt(TOKENIZER, messages)


def read(judge: str, mode: str, answer: str, thought: str | None = None):
    """A completion as the template lays it out, parsed: (problem, mode, thought, answer)."""
    text = template.judged(mode, judge) + template.body(mode, answer, thought) + template.END
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    parsed = template.parse(ids, TAGS)
    spans = (parsed.thought, parsed.answer)
    said = [None if s is None else TOKENIZER.decode(ids[slice(*s)])[1:-1] for s in spans]
    return parsed.problem, parsed.mode, *said


WELL_FORMED = [  # judge, answer, thought (None: think-off)
    ("Asks what `<think_on>` does.", "It asks for a thought.", None),
    ("Asks for <think>…</think>.", "Write <think>x</think> around it.", None),
    ("Asks for </judge>.", "</judge>", None),
    ("Easy.", "<think>", None),
    ("Easy.", "<think>hello</think>", None),
    ("Easy.", "Close it with </answer>, please.", None),
    ("Easy.", "Write it so:\n<answer>\n42\n</answer>\nDone.", None),
    ("Easy.", "Both <think_on> and <think_off> decide.", None),
    ("<think> is asked about.", "A tag.", None),
    ("Hard.", "`</think>` it is.", "Is it </think> or <think_off>? I say </think>."),
    ("Hard.", "12", "First <answer> 12 </answer>, or <think_on>?"),
    ("Hard.", "No <judge>.", "<think>"),
]


@pytest.mark.parametrize("judge, answer, thought", WELL_FORMED)
def test_a_completion_that_speaks_of_tags_is_well_formed(judge, answer, thought):
    mode = "off" if thought is None else "on"
    assert read(judge, mode, answer, thought) == (None, mode, thought, answer)


MALFORMED = {  # what is no mention but a second structure stays a fault
    "off with thought": [
        "x</judge><think_off><answer><think>5+7</think>12</answer>",
        "x</judge><think_off><think>5+7</think><answer>12</answer>",
    ],
    "out of order": [
        "x</judge><think_off><answer>1</answer><answer>2</answer>",
        "x</judge><think_off><answer>1</answer> no, <answer>2</answer>",
        "<answer>1</answer></judge><think_off><answer>2</answer>",
        "x</judge><think_on><think>a</think> b <think>c</think><answer>2</answer>",
    ],
    "two decisions": [
        "x</judge><think_off><answer>1</answer></judge><think_on><think>a</think>",
        "x</judge><think_off><think_on><answer>1</answer>",
    ],
    "unclosed": ["x <think_on> y</judge><think_off><answer>1"],
    "missing decision": ["x</judge><answer>1</answer>"],
    "stray text": ["x</judge><think_on><think>a</think> b <answer>2</answer>"],
}


@pytest.mark.parametrize("problem, text", [(p, t) for p, texts in MALFORMED.items() for t in texts])
def test_a_second_structure_is_a_fault(problem, text):
    ids = TOKENIZER(text + template.END, add_special_tokens=False)["input_ids"]
    assert template.parse(ids, TAGS).problem == problem


def test_a_tag_in_the_judge_does_not_decide():
    """Cut off before its answer, the completion still has the mode that stands behind the judge."""
    text = "Asked for <think_on> here.\n</judge>\n\n<think_off>\n<answer>\nIt"
    parsed = template.parse(TOKENIZER(text, add_special_tokens=False)["input_ids"], TAGS)
    assert (parsed.mode, parsed.problem) == ("off", "truncated")


words = st.lists(st.sampled_from(["say", "42", "`x`", "é", "\nthen", *template.TAGS]), max_size=8)
spoken = words.map(lambda said: " ".join(["We", *said, "here."]))


def is_one(text: str, tag: str) -> bool:
    """Whether the tags in a text are mentions: none closes a block and opens it again."""
    return f"<{tag}>" not in text.partition(f"</{tag}>")[2]


@given(spoken, spoken, spoken, st.sampled_from(template.MODES))
def test_what_is_rendered_is_read_back_whatever_it_speaks_of(judge, thought, answer, mode):
    layout = "</judge> <think_o"  # a sentence that has the layout itself is not told apart
    if layout in judge or "</think> <answer>" in thought:
        return
    if not (is_one(answer, "answer") and is_one(thought, "think")):
        return
    thought = thought if mode == "on" else None
    assert read(judge, mode, answer, thought) == (None, mode, thought, answer)


@given(spoken)
def test_an_answer_stays_whole_in_every_form(answer):
    assert kept(answer) == answer
    assert kept([part(answer)]) == answer
    if "</judge> <think_o" not in answer and is_one(answer, "answer"):
        layout = template.judged("on", "why") + template.body("on", answer, "a thought")
        assert kept(layout) == kept("<judge>\n" + layout) == answer


CALL = {"name": "get", "arguments": {"city": "Oslo"}}
BLOCK = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo"}}\n</tool_call>'
HELD = "<|im_start|>assistant\n"
FORMS = {  # messages between two questions -> what stands in the prompt
    "call without content": (
        [{"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "call without the key content": (
        [{"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": CALL}]}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "call beside text": (
        [{"role": "assistant", "content": "I look.", "tool_calls": [CALL]}],
        f"{HELD}I look.\n{BLOCK}<|im_end|>",
    ),
    "call after a thought": (
        [{"role": "assistant", "content": "<think>\na\n</think>\n\n", "tool_calls": [CALL]}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "two calls": (
        [{"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}],
        f"{HELD}{BLOCK}\n{BLOCK}<|im_end|>",
    ),
    "arguments as JSON text": (
        [{"role": "assistant", "tool_calls": [CALL | {"arguments": '{"city": "Oslo"}'}]}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "arguments named parameters": (
        [{"role": "assistant", "tool_calls": [{"name": "get", "parameters": {"city": "Oslo"}}]}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "no arguments": (
        [{"role": "assistant", "tool_calls": [{"name": "now", "arguments": ""}, {"name": "now"}]}],
        '"arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "now", "arguments": {}}',
    ),
    "the older function_call": (
        [{"role": "assistant", "content": None, "function_call": CALL}],
        f"{HELD}{BLOCK}<|im_end|>",
    ),
    "text parts": (
        [{"role": "assistant", "content": [part("se"), part("ven")]}],
        f"{HELD}seven<|im_end|>",
    ),
    "text parts of a user": (
        [{"role": "user", "content": [part("Compute 3+4.")]}],
        "user\nCompute 3+4.<|im_end|>",
    ),
    "parts with tags in their place": (
        [{"role": "assistant", "content": [part("<think>\na\n</think>\n\n7")]}],
        f"{HELD}7<|im_end|>",
    ),
    "thought in parts": (
        [{"role": "assistant", "content": [{"type": "thinking", "thinking": "a"}, part("7")]}],
        f"{HELD}7<|im_end|>",
    ),
    "thought as reasoning_content": (
        [{"role": "assistant", "content": "7", "reasoning_content": "3+4"}],
        f"{HELD}7<|im_end|>",
    ),
    "thought and nothing else": (
        [{"role": "assistant", "content": None, "thinking": "3+4"}],
        f"{HELD}<|im_end|>",
    ),
    "an object as a tool's result": (
        [{"role": "tool", "content": {"t": 9, "ort": "Tromsø"}}],
        '<tool_response>\n{"t": 9, "ort": "Tromsø"}\n</tool_response>',
    ),
    "a list as a tool's result": (
        [{"role": "tool", "content": [1, "a", {"b": None}]}],
        '<tool_response>\n[1, "a", {"b": null}]\n</tool_response>',
    ),
    "an empty list as a tool's result": (
        [{"role": "tool", "content": []}],
        "<tool_response>\n[]\n</tool_response>",
    ),
    "a number as a tool's result": (
        [{"role": "tool", "content": 9.5}],
        "<tool_response>\n9.5\n</tool_response>",
    ),
    "nothing as a tool's result": (
        [{"role": "tool", "content": None}],
        "<tool_response>\nnull\n</tool_response>",
    ),
    "text parts as a tool's result": (
        [{"role": "tool", "content": [part("9")]}],
        "<tool_response>\n9\n</tool_response>",
    ),
    "the older role function": (
        [{"role": "function", "name": "get", "content": "9"}],
        "<tool_response>\n9\n</tool_response>",
    ),
    "a developer": ([{"role": "developer", "content": "Be short."}], "system\nBe short.<|im_end|>"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_message_forms_of_chat_templates(form):
    messages, shown = FORMS[form]
    assert shown in history(*messages)


def test_a_developer_who_speaks_first_is_the_system():
    text = template.prompt(TOKENIZER, [{"role": "developer", "content": "Be short."}, ASK])
    assert text.startswith("<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user")


REFUSED = {  # what is wrong -> messages
    "role critic": [{"role": "critic", "content": "no"}],
    "role ": [{"content": "no"}],
    "content of type image": [{"role": "user", "content": [{"type": "image", "url": "x.png"}]}],
    "content of type object": [{"role": "user", "content": {"text": "x"}}],
    "user message has no content": [{"role": "user", "content": None}],
    "neither content nor tool_calls": [{"role": "assistant", "content": None, "tool_calls": []}],
    "no list": [{"role": "assistant", "tool_calls": {"name": "get"}}],
    "tool call has no name": [{"role": "assistant", "tool_calls": [{"arguments": {}}]}],
    "at least one message": [],
    "each with role and content": ["Compute 3+4."],
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_forms_are_refused_in_one_sentence(what):
    with pytest.raises(UserError, match=what) as refused:
        template.prompt(TOKENIZER, REFUSED[what])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_the_last_turns_own_thought_is_laid_out(key):
    """A row to learn from: the trigger, then thought and answer as `body` writes them."""
    said = {"role": "assistant", "content": "7", key: "3+4"}
    text = TOKENIZER.apply_chat_template([ASK, said], tokenize=False)
    assert text.endswith(f"{HELD}<think_on>\n{template.body('on', '7', '3+4')}<|im_end|>\n")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('aé"\\\n{}<', max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=5,
)
calls = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["get", "set"]),
        "arguments": st.dictionaries(st.text("xyé"), json_values),
    }
)


@given(st.lists(calls, min_size=1, max_size=3), st.booleans())
def test_tool_calls_in_a_history_are_read_back(given_calls, as_text):
    shown = [
        {"function": call | {"arguments": json.dumps(call["arguments"])}} if as_text else call
        for call in given_calls
    ]
    text = history({"role": "assistant", "content": None, "tool_calls": shown})
    assert parse_calls(text) == given_calls
