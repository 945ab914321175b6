"""Talking to a student: token by token, in a terminal, and to one of a finished run."""

import io
import re
import threading

import pytest
from rich.console import Console

from katlab import UserError, lab, template
from katlab.conversation import chat, stream, terminal
from katlab.conversation.chat import Chat
from katlab.generation import local, streaming

ASKED = [{"role": "user", "content": "Compute 3+4."}]
WORDS = lab.load_profile("nano").prompts
THOUGHT = "three and four"


@pytest.fixture
def student(model, tokenizer) -> Chat:
    return Chat(model, tokenizer, WORDS)


def scripted(monkeypatch, tokenizer, *texts: str) -> list[str]:
    """Let each reply be the next of some texts, one second a token; gives back the prompts."""
    seen, waiting = [], list(texts)

    def tokens(model, tok, prompt, **how):
        seen.append(prompt)
        ids = tok(waiting.pop(0), add_special_tokens=False)["input_ids"]
        begun = stream.time.perf_counter()
        yield from ((token, begun + i) for i, token in enumerate(ids, start=1))

    monkeypatch.setattr(streaming, "tokens", tokens)
    return seen


def said(mode: str, answer: str, thought: str | None = None) -> str:
    return template.judged(mode, "a sum") + template.body(mode, answer, thought) + "<|im_end|>"


def shown(pieces: list[tuple[str, str]]) -> dict[str, str]:
    text: dict[str, str] = {}
    for part, piece in pieces:
        text[part] = text.get(part, "") + piece
    return text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_streamed_tokens_are_the_sampled_ones(model, tokenizer, temperature):
    prompt = template.prompt(tokenizer, ASKED)
    how = dict(max_new_tokens=12, temperature=temperature, seed=3)
    [whole] = local.sample(model, tokenizer, [prompt], **how)
    drawn = list(streaming.tokens(model, tokenizer, prompt, **how))
    assert [token for token, _ in drawn] == whole
    moments = [moment for _, moment in drawn]
    assert moments == sorted(moments)


def test_closing_the_iterator_stops_the_model(model, tokenizer):
    before = threading.active_count()
    coming = streaming.tokens(model, tokenizer, "3", max_new_tokens=10_000, temperature=1.0)
    next(coming)
    coming.close()
    assert threading.active_count() == before


def test_what_the_model_raises_reaches_the_caller(model, tokenizer):
    with pytest.raises(ValueError, match="max_new_tokens"):
        list(streaming.tokens(model, tokenizer, "3", max_new_tokens=-1))


def test_pieces_join_to_the_parts_and_seconds_follow_the_tokens(monkeypatch, student):
    scripted(monkeypatch, student.tokenizer, said("on", "7 or <think> so", THOUGHT))
    pieces: list[tuple[str, str]] = []
    got = stream.reply(student, ASKED, show=lambda *piece: pieces.append(piece))
    assert shown(pieces) == {"judge": "a sum", "thought": THOUGHT, "answer": "7 or <think> so"}
    assert (got.judge, got.thought, got.answer) == ("a sum", THOUGHT, "7 or <think> so")
    assert len(pieces) > 3
    for part in ("thought", "answer"):  # a second a token
        assert got.seconds[part] == pytest.approx(got.tokens[part])
    assert got.seconds["all"] == pytest.approx(got.tokens["all"], abs=0.5)


def test_a_forced_mode_shows_the_judge_it_was_given(monkeypatch, student):
    seen = scripted(monkeypatch, student.tokenizer, template.body("off", "7") + "<|im_end|>")
    pieces: list[tuple[str, str]] = []
    got = stream.reply(student, ASKED, "off", lambda *piece: pieces.append(piece))
    assert shown(pieces) == {"judge": WORDS.forced_off, "answer": "7"}
    assert seen[0].endswith("<think_off>\n") and got.mode == got.forced == "off"


def test_an_interrupt_keeps_what_was_said(student):
    def show(part: str, text: str) -> None:
        raise KeyboardInterrupt

    got = stream.reply(student, ASKED, show=show, max_new_tokens=10_000, temperature=1.0)
    assert got.problem is not None and 0 < got.tokens["all"] < 10_000


def talked(monkeypatch, student: Chat, typed: str, mode: str = "auto") -> str:
    """What the terminal prints for lines that come through a pipe."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    terminal.talk(student, Console(file=out, highlight=False, markup=False, width=80), mode)
    return out.getvalue()


def test_a_conversation_has_turns_modes_and_parts_apart(monkeypatch, student):
    rest = template.body("on", "9", THOUGHT) + "<|im_end|>"
    seen = scripted(monkeypatch, student.tokenizer, said("off", "7"), rest, said("off", "1"))
    typed = "Compute 3+4.\n/on\nAdd 2.\n/reset\n/auto\nCompute 1.\n/quit\nnever"
    told = talked(monkeypatch, student, typed).splitlines()
    assert told[:3] == ["you      Compute 3+4.", "judge    a sum", "answer   7"]
    assert told[3] == "decision think off" and told[6] == ""
    assert re.fullmatch(r"tokens   judge \d+ · answer \d+ · all \d+", told[4])
    assert re.fullmatch(r"seconds  judge \d+\.00 · answer \d+\.00 · all \d+\.00", told[5])
    assert told[7:9] == ["Mode on.", "you      Add 2."]
    assert told[9:12] == [f"judge    {WORDS.forced_on}", f"thought  {THOUGHT}", "answer   9"]
    assert told[12] == "decision think on (forced)" and " · thought " in told[13]
    assert "\x1b" not in "".join(told), "a pipe gets no colour"
    first, second, third = seen
    assert "7" in second and "Compute 3+4." in second and second.endswith("<think_on>\n")
    assert "Compute 3+4." not in third, "/reset forgets"


def test_a_malformed_reply_is_named_and_left_out_of_the_conversation(monkeypatch, student):
    seen = scripted(monkeypatch, student.tokenizer, said("off", "7"), "hm", said("off", "1"))
    told = talked(monkeypatch, student, "Compute 3+4.\nAdd 2.\nAdd 3.\n")
    assert "decision none · malformed: truncated" in told and "left out" in told
    assert "Add 2." not in seen[2] and "Compute 3+4." in seen[2]


def test_an_unknown_command_is_one_sentence(monkeypatch, student):
    assert talked(monkeypatch, student, "/of") == (
        "There is no command '/of'; did you mean '/off'?\n"
    )


def test_students_that_do_not_decide_are_refused():
    with pytest.raises(UserError, match="choose 04_cold_start or 05_step_srpo"):
        chat.student(None, "03")
