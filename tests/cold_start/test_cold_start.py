"""Stage 04: random modes, directives, rationales, replayed rows, and the loss mask."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from responders import Scripted
from test_template import byte_tokenizer

from katlab import lab, template
from katlab.cold_start import corpus, rationale
from katlab.tasks import wishes
from katlab.tasks.nano import world

ROWS = world.queries(300, seed=2, split="stage_2")
WORDS = lab.load_profile("tiny").prompts


def test_random_modes_are_one_in_a_hundred_and_marked():
    rows = [row | {"mode": "off"} for row in ROWS]
    marked = corpus.randomize(rows, 0.01, seed=0)
    assert sum("random_mode" in row for row in marked) == 3
    assert all(row["mode"] == "off" for row in marked if "random_mode" not in row)


def test_directives_are_obeyed_and_leave_the_plain_query_for_the_teachers():
    marked = corpus.direct([row | {"mode": "on"} for row in ROWS], 0.2, 0.75, WORDS, seed=0)
    wished = [row for row in marked if "plain" in row]
    assert len(wished) == 60
    assert 35 < sum(row["mode"] == "on" for row in wished) < 55
    for row in wished:
        said = row["messages"][-1]["content"]
        wish = said.removeprefix(f"{row['plain'][-1]['content']} ")
        assert wish in wishes.trained(WORDS, row["mode"])


def test_no_sentence_that_is_tested_is_trained_on():
    marked = corpus.direct([row | {"mode": "on"} for row in ROWS], 1.0, 0.5, WORDS, seed=0)
    said = [row["messages"][-1]["content"] for row in marked]
    told = {mode: 0 for mode in template.MODES}
    for mode in template.MODES:
        for wish in wishes.tested(WORDS, mode):
            assert not any(text.endswith(f" {wish}") for text in said), wish
        told[mode] = sum(
            any(s.endswith(f" {w}") for s in said) for w in wishes.trained(WORDS, mode)
        )
    assert told == {"on": 33, "off": 33}  # each one of those trained on, drawn at random


def test_a_wish_is_any_of_the_profiles_words():
    words = SimpleNamespace(directive_on=["Take time.", "Reason."], directive_off=["Be quick."])
    marked = corpus.direct([row | {"mode": "on"} for row in ROWS], 0.5, 0.5, words, seed=0)
    said = {
        (row["mode"], row["messages"][-1]["content"].removeprefix(row["plain"][-1]["content"]))
        for row in marked
        if "plain" in row
    }
    assert said == {("on", " Take time."), ("on", " Reason."), ("off", " Be quick.")}


def test_a_rationale_that_names_another_mode_is_dropped():
    rows = [row | {"mode": "on"} for row in ROWS[:4]]
    texts = ["a: think on.", "b: think off.", "c", "d: think on, not think off."]
    replies = iter(texts)
    kept, dropped = rationale.rationalize(rows, Scripted(lambda row, k: next(replies)), WORDS)
    assert [row["judge"] for row in kept] == texts[:1]
    assert [row["judge"] for row in dropped] == texts[1:]


def test_a_rationale_is_asked_for_and_read_in_the_profiles_words():
    words = SimpleNamespace(
        rationale="Say why this needs thinking turned {mode}.", rationale_pattern=r"\[(on|off)\]"
    )
    asked = []

    def write(row, k):
        asked.append(row["messages"][-1]["content"])
        return "It is long, think off would fail: [on]"

    kept, dropped = rationale.rationalize([ROWS[0] | {"mode": "on"}], Scripted(write), words)
    assert len(kept) == 1 and not dropped
    assert asked[0].endswith("\nSay why this needs thinking turned on.")


@pytest.mark.parametrize("profile", ["nano", "proxy-1.5b", "target-40b"])
def test_the_words_that_force_a_mode_explain_it(profile):
    words = lab.load_profile(profile).prompts
    for mode, other in (("on", "off"), ("off", "on")):
        assert rationale.explains(vars(words)[f"forced_{mode}"], mode, words)
        assert not rationale.explains(vars(words)[f"forced_{mode}"], other, words)
        assert rationale.explains(words.rationale.format(mode=mode), mode, words)


def test_where_the_user_said_the_mode_that_is_the_reason():
    rows = [row | {"mode": "off", "plain": row["messages"]} for row in ROWS[:2]]
    kept, dropped = rationale.rationalize(rows, Scripted(lambda row, k: "think on."), WORDS)
    assert [row["judge"] for row in kept] == ["answer directly, think off."] * 2 and not dropped


@given(share=st.sampled_from([0.0, 0.25, 0.5]), total=st.integers(4, 60), size=st.integers(1, 20))
def test_a_mix_uses_every_row_before_one_comes_again(share, total, size):
    own, stage_1 = [{"id": i} for i in range(size)], [{"id": -1 - i} for i in range(7)]
    mixed = [row["id"] for row in corpus.mix(own, stage_1, share, total, seed=0)]
    old = [i for i in mixed if i < 0]
    assert len(mixed) == total and len(old) == round(share * total)
    for source, rows in ((7, old), (size, [i for i in mixed if i >= 0])):
        times = [rows.count(i) for i in set(rows)]
        assert not rows or max(times) == -(-len(rows) // source)
        assert len(rows) < source or min(times) >= len(rows) // source


@pytest.mark.parametrize("mode", template.MODES)
def test_a_replayed_row_is_given_its_decision_and_learns_the_rest(tokenizer, mode):
    thought = "5+3=8" if mode == "on" else None
    row = ROWS[0] | {"mode": mode, "answer": ROWS[0]["direct"], "thought": thought}
    encoded = corpus.encode(tokenizer, row, WORDS)
    mask = encoded["completion_mask"]
    head, learned = (
        tokenizer.decode([i for i, m in zip(encoded["input_ids"], mask, strict=True) if m == part])
        for part in (0, 1)
    )
    forced = template.prompt(tokenizer, row["messages"], row["tools"])
    assert head == forced + template.judged(mode, vars(WORDS)[f"forced_{mode}"])
    assert learned == template.body(mode, row["answer"], thought) + "<|im_end|>"


def test_responses_come_from_the_modes_teacher():
    rows = [row | {"mode": mode} for row, mode in zip(ROWS[:40], ["on", "off"] * 20, strict=True)]
    on = Scripted(lambda r, k: f"<think>\n{r['thought']}\n</think>\n\n{r['direct']}", name="R1")
    off = Scripted(lambda row, k: row["direct"], name="V3")
    answered = corpus.respond(rows, off, on, WORDS, seed=0)
    assert len(answered) == 40
    assert {(row["mode"], row["teacher"]) for row in answered} == {("on", "R1"), ("off", "V3")}
    assert all((row["thought"] is None) == (row["mode"] == "off") for row in answered)


def test_loss_covers_judge_decision_thought_and_answer_but_not_the_prompt():
    tokenizer = byte_tokenizer(eos="<|endoftext|>")  # a base model's, as Qwen2.5-32B has it
    template.add_tags(tokenizer)
    row = ROWS[0] | {"mode": "on", "judge": "hard, think on.", "thought": "t", "answer": "a"}
    encoded = corpus.encode(tokenizer, row, WORDS)
    first = encoded["completion_mask"].index(1)
    assert tokenizer.decode(encoded["input_ids"][:first]).endswith("<judge>\n")
    learned = tokenizer.decode(encoded["input_ids"][first:])
    assert learned == template.judged("on", "hard, think on.") + template.body("on", "a", "t") + (
        "<|im_end|>"
    )
    assert all(encoded["completion_mask"][first:])
