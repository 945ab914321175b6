"""The KAT layout: byte-exact rendering, history rewriting, and a parser that names every fault."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from katlab import UserError, template


def byte_tokenizer(eos: str = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: any text, no training; base models end otherwise."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(["<|endoftext|>", "<|im_end|>", *alphabet])}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|endoftext|>", eos_token=eos)


@pytest.fixture(scope="module")
def tokenizer():
    made = byte_tokenizer()
    template.add_tags(made)
    return made


@pytest.fixture(scope="module")
def tags(tokenizer):
    return template.Tags.of(tokenizer)


ON = template.judged("on", "hard") + template.body("on", "12", "5+7=12") + "<|im_end|>"
OFF = template.judged("off", "easy") + template.body("off", "12") + "<|im_end|>"


def parse(text, tokenizer, tags):
    return template.parse(tokenizer(text, add_special_tokens=False)["input_ids"], tags)


def test_table_2_layout_byte_for_byte():
    assert ON == (
        "hard\n</judge>\n\n<think_on>\n<think>\n5+7=12\n</think>\n\n<answer>\n12\n</answer><|im_end|>"
    )
    assert OFF == "easy\n</judge>\n\n<think_off>\n<answer>\n12\n</answer><|im_end|>"


def test_tags_are_single_tokens_that_survive_decoding_without_special_tokens(tokenizer):
    for tag in template.TAGS:
        (token,) = tokenizer(tag, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode([token], skip_special_tokens=True) == tag
    assert template.add_tags(tokenizer) == []  # adding them again adds nothing


def test_only_tokens_that_a_tokenizer_lacks_are_new():
    made = byte_tokenizer()
    made.add_tokens(["<think>", "</think>"])  # as Qwen3 and the R1 distils have them
    kept = made.convert_tokens_to_ids(["<think>", "</think>"])
    new = template.add_tags(made)
    assert new == [tag for tag in template.TAGS if tag not in ("<think>", "</think>")]
    assert made.convert_tokens_to_ids(["<think>", "</think>"]) == kept


def test_the_templates_end_token_ends_a_base_models_turns():
    made = byte_tokenizer(eos="<|endoftext|>")
    ends = made.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert "<|im_end|>" not in template.add_tags(made), "its row is there, if unused"
    assert made.eos_token == "<|im_end|>" and made.eos_token_id == ends[0]
    assert sorted(template.end_ids(made)) == sorted(ends)
    assert template.Tags.of(made).eos == set(ends)


def test_generation_prompt_prefills_the_judge_or_the_trigger(tokenizer):
    messages = [{"role": "user", "content": "5+7?"}]
    head = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n5+7?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.prompt(tokenizer, messages) == head + "<judge>\n"
    assert template.prompt(tokenizer, messages, mode="on") == head + "<think_on>\n"
    assert template.prompt(tokenizer, messages, mode="off") == head + "<think_off>\n"


def test_history_keeps_only_the_last_answer(tokenizer):
    cases = {
        "<judge>\n" + ON.removesuffix("<|im_end|>"): "12",
        "<answer>\na\n</answer> no: <answer>\nb\n</answer>": "b",
        "<judge>\nx\n</judge>\n\n<think_off>\nplain": "plain",
        "<think>\nlong\n</think>\n\nshort": "short",
        "untouched": "untouched",
    }
    for said, kept in cases.items():
        messages = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": "and?"},
        ]
        text = template.prompt(tokenizer, messages)
        assert f"<|im_start|>assistant\n{kept}<|im_end|>\n<|im_start|>user\nand?" in text


def test_final_assistant_turn_is_left_as_it_is(tokenizer):
    said = "<judge>\n" + OFF.removesuffix("<|im_end|>")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": said}]
    assert said in tokenizer.apply_chat_template(messages, tokenize=False)


def test_tools_replace_the_default_system_text(tokenizer):
    text = template.prompt(tokenizer, [{"role": "user", "content": "q"}], tools=[{"name": "f"}])
    assert 'system\n# Tools\n<tools>\n{"name": "f"}\n</tools><|im_end|>' in text
    assert "helpful" not in text


def test_spans_of_a_think_on_completion(tokenizer, tags):
    ids = tokenizer(ON, add_special_tokens=False)["input_ids"]
    parsed = template.parse(ids, tags)
    assert (parsed.mode, parsed.problem, parsed.length) == ("on", None, len(ids))
    assert tokenizer.decode(ids[slice(*parsed.judge)]) == "hard\n</judge>\n\n<think_on>"
    assert tokenizer.decode(ids[slice(*parsed.thought)]) == "\n5+7=12\n"
    assert tokenizer.decode(ids[slice(*parsed.answer)]) == "\n12\n"
    assert ids[parsed.decision] == tags.ids["<think_on>"]


def test_prefilled_and_written_judge_parse_alike(tokenizer, tags):
    for text in (ON, OFF):
        inside, whole = parse(text, tokenizer, tags), parse("<judge>\n" + text, tokenizer, tags)
        assert inside.problem is whole.problem is None
        assert inside.mode == whole.mode


FAULTS = {
    "missing decision": OFF.replace("<think_off>", ""),
    "two decisions": OFF.replace("<think_off>", "<think_off><think_on>"),
    "off with thought": ON.replace("<think_on>", "<think_off>"),
    "on without thought": OFF.replace("<think_off>", "<think_on>"),
    "unclosed": OFF.replace("</answer>", ""),
    "truncated": ON[:60],
    "out of order": "<answer>\n1\n</answer>\n" + template.judged("off", "x") + "<|im_end|>",
    "stray text": OFF.replace("<think_off>\n", "<think_off>\nwell, "),
}


@pytest.mark.parametrize("problem", template.PROBLEMS)
def test_every_fault_is_named(problem, tokenizer, tags):
    assert parse(FAULTS[problem], tokenizer, tags).problem == problem


def test_text_after_the_end_of_turn_is_ignored(tokenizer, tags):
    ids = tokenizer(OFF + "<think_on>", add_special_tokens=False)["input_ids"]
    assert template.parse(ids, tags).problem is None


def test_missing_tags_are_a_user_error():
    with pytest.raises(UserError, match="add_tags"):
        template.Tags.of(byte_tokenizer())


def test_a_thought_belongs_to_mode_on_only():
    with pytest.raises(ValueError):
        template.body("off", "1", "because")
    with pytest.raises(ValueError):
        template.body("on", "1")


@given(st.lists(st.sampled_from([*template.TAGS, "a", "\n", " ", "<|im_end|>"]), max_size=24))
def test_parsing_never_fails_and_spans_stay_inside(pieces):
    tokenizer, tags = _shared()
    ids = tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]
    parsed = template.parse(ids, tags)
    assert parsed.problem in (None, *template.PROBLEMS)
    for span in (parsed.judge, parsed.thought, parsed.answer):
        assert span is None or 0 <= span[0] <= span[1] <= parsed.length <= len(ids)


@given(st.text(alphabet="abc 0123\n", max_size=20), st.sampled_from(["on", "off"]))
def test_what_is_rendered_parses_back(text, mode):
    tokenizer, tags = _shared()
    thought = text if mode == "on" else None
    whole = template.judged(mode, "why") + template.body(mode, text, thought) + "<|im_end|>"
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    parsed = template.parse(ids, tags)
    assert (parsed.mode, parsed.problem) == (mode, None)
    assert tokenizer.decode(ids[slice(*parsed.answer)]) == f"\n{text}\n"


SHARED = []


def _shared():
    if not SHARED:
        made = byte_tokenizer()
        template.add_tags(made)
        SHARED.extend([made, template.Tags.of(made)])
    return SHARED


def test_random_ids_never_crash(tokenizer, tags):
    rng = random.Random(0)
    for _ in range(500):
        ids = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(40))]
        assert template.parse(ids, tags).problem in (None, *template.PROBLEMS)
