"""What a server makes of a reply: whole, streamed in any pieces, cut off anywhere."""

import pytest
from transformers.utils.chat_parsing import ResponseParser, parse_response

from katlab import template
from katlab.export import response

CALL = '<tool_call>\n{"name": "set_fan", "arguments": {"level": 28}}\n</tool_call>'
CALLED = {"type": "function", "function": {"name": "set_fan", "arguments": {"level": 28}}}
HEAD = "<|im_start|>user\nWhat does <judge> do?<|im_end|>\n<|im_start|>assistant\n"
AUTO, ON, OFF = HEAD + "<judge>\n", HEAD + "<think_on>\n", HEAD + "<think_off>\n"


def on(judge: str, thought: str, answer: str) -> str:
    return template.judged("on", judge) + template.body("on", answer, thought) + template.END


def off(judge: str, answer: str) -> str:
    return template.judged("off", judge) + template.body("off", answer) + template.END


# what: (prompt, reply, judge, thought, answer, calls)
REPLIES = {
    "think-on": (AUTO, on("hard.", "5+7=12\nso 12", "12"), "hard.", "5+7=12\nso 12", "12", []),
    "think-off": (AUTO, off("easy.", "12"), "easy.", "", "12", []),
    "lines": (AUTO, off("a\n\nb", "1\n\n2\n 3"), "a\n\nb", "", "1\n\n2\n 3", []),
    "call": (AUTO, on("a tool.", "to 28", CALL), "a tool.", "to 28", "", [CALLED]),
    "call, off": (AUTO, off("a tool.", CALL), "a tool.", "", "", [CALLED]),
    "two calls": (AUTO, off("j", f"{CALL}\n{CALL}"), "j", "", "", [CALLED, CALLED]),
    "text, call": (AUTO, off("j", f"I set it.\n{CALL}"), "j", "", "I set it.", [CALLED]),
    "trigger on": (ON, template.body("on", "12", "5+7"), "", "5+7", "12", []),
    "trigger off": (OFF, template.body("off", "12") + template.END, "", "", "12", []),
    "forced on": (
        AUTO + template.judged("on", "j"),
        template.body("on", "a", "t"),
        "j",
        "t",
        "a",
        [],
    ),
    "forced off": (AUTO + template.judged("off", "j"), template.body("off", "a"), "j", "", "a", []),
    "padded": (AUTO, off("j", "12") + "<|endoftext|>" * 3, "j", "", "12", []),
    "judge given": (HEAD, "<judge>\n" + off("j", "12"), "j", "", "12", []),
}
NAMED = "The <judge>, </judge> and <think_on> tags; </think>, <answer> x </answer>, <tool_call> y."
REPLIES |= {
    "answer names tags": (AUTO, off("j", NAMED), "j", "", NAMED, []),
    "answer names tags, on": (AUTO, on("j", "t", NAMED), "j", "t", NAMED, []),
    "answer ends on a tag": (AUTO, off("j", "Say </answer>"), "j", "", "Say </answer>", []),
    "answer begins with a tag": (AUTO, off("j", "<think> is one"), "j", "", "<think> is one", []),
    "thought names tags": (AUTO, on("j", NAMED, "ok"), "j", NAMED, "ok", []),
    "judge names tags": (AUTO, off("of <answer>.", "ok"), "of <answer>.", "", "ok", []),
}  # fmt: skip


@pytest.fixture(params=REPLIES, ids=str)
def case(request):
    return REPLIES[request.param]


def expected(judge: str, thought: str, answer: str, calls: list) -> dict:
    parts = {"judge": judge, "thinking": thought, "content": answer, "tool_calls": calls}
    return {"role": "assistant"} | {name: part for name, part in parts.items() if part}


def served(message: dict) -> dict:
    """A message with judge and thought apart, as SERVED gives them: in one field."""
    judge, thought = message.pop("judge", ""), message.pop("thinking", "")
    between = "\n</judge>\n\n<think_on>\n<think>\n" if judge and thought else ""
    return message | ({"thinking": judge + between + thought} if judge or thought else {})


def test_a_whole_reply_is_split(case):
    prompt, reply, *parts = case
    assert parse_response(reply, response.PARTS, prefix=prompt) == expected(*parts)
    assert parse_response(reply, response.SERVED, prefix=prompt) == served(expected(*parts))


@pytest.mark.parametrize("spec", ["SERVED", "PARTS"])
def test_a_stream_cut_anywhere_gives_the_same(case, spec):
    """In two pieces at every place, and letter by letter; chunks add up to what the message has."""
    prompt, reply, *_ = case
    whole = parse_response(reply, getattr(response, spec), prefix=prompt)
    for pieces in [[reply[:i], reply[i:]] for i in range(len(reply))] + [list(reply)]:
        parser = ResponseParser(getattr(response, spec), prefix=prompt)
        events = [*parser.initial_events, *(e for piece in pieces for e in parser.feed(piece))]
        message, last = parser.finalize()
        assert message == whole
        for field in ("judge", "thinking", "content"):
            chunks = [e.get("text", "") for e in events + last if e["field"] == field]
            assert "".join(chunks).strip() == whole.get(field, "")


@pytest.mark.parametrize("spec", ["SERVED", "PARTS"])
def test_a_reply_that_breaks_off_is_read_as_far_as_it_goes(case, spec):
    """No prefix of a reply is an error, and what was streamed is never taken back."""
    prompt, reply, *_ = case
    whole = parse_response(reply, getattr(response, spec), prefix=prompt)
    for i in range(len(reply)):
        message = parse_response(reply[:i], getattr(response, spec), prefix=prompt)
        assert message["role"] == "assistant"
        assert set(message) <= {"role", "judge", "thinking", "content", "tool_calls"}
        parser = ResponseParser(getattr(response, spec), prefix=prompt)
        said = "".join(e.get("text", "") for e in parser.feed(reply[:i]) if e["field"] == "content")
        assert whole.get("content", "").startswith(said.strip())


BROKEN = {
    "no decision": ("I cannot say.", {"thinking": "I cannot say."}),
    "no decision, ended": ("I cannot say.<|im_end|>", {"thinking": "I cannot say."}),
    "on without a thought": ("j\n</judge>\n\n<think_on>\n<answer>\n4\n</answer><|im_end|>",
                             {"thinking": "j", "content": "4"}),
    "never closed": ("j\n</judge>\n\n<think_off>\n<answer>\n4", {"thinking": "j", "content": "4"}),
    "a call that is none": (
        "j\n</judge>\n\n<think_off>\n<answer>\n<tool_call>\n{4\n</answer><|im_end|>",
        {"thinking": "j", "tool_calls": [{"type": "function", "function": "{4"}]}),
    "a call without its end": ('j\n</judge>\n\n<think_off>\n<answer>\n<tool_call>\n{"name": "f"',
        {"thinking": "j", "tool_calls": [{"type": "function", "function": '{"name": "f"'}]}),
}  # fmt: skip


@pytest.mark.parametrize("reply, message", BROKEN.values(), ids=BROKEN)
def test_a_reply_out_of_form_is_still_a_message(reply, message):
    parsed = parse_response(reply, response.SERVED, prefix=AUTO)
    assert parsed == {"role": "assistant"} | message


def test_what_the_server_of_vllm_takes():
    """Its `hf` parser refuses other fields and defaults, joins, and text that is transformed."""
    fields = response.SERVED["fields"]
    assert set(fields) == {"thinking", "content", "tool_calls"}
    assert set(response.SERVED["defaults"]) == {"role"}
    for name in ("thinking", "content"):
        assert fields[name]["content"] == "text"
        assert not {"transform", "join", "repeats"} & set(fields[name])
