"""Sampling: its own settings alone, both end tokens, batches kept as they come."""

import copy

import pytest
import torch
from transformers import GenerationConfig

from katlab import UserError, template
from katlab.generation import local
from katlab.lab import Journal

PROMPTS = [f"{a}+{b}" for a in range(2, 12) for b in range(3, 5)]


def answers(model, tokenizer, **how) -> list[list[int]]:
    return local.sample(model, tokenizer, PROMPTS, max_new_tokens=12, **how)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_checkpoint_suggests_is_left_out(model, tokenizer, temperature):
    plain = answers(model, tokenizer, temperature=temperature)
    heavy = copy.deepcopy(model)
    said = sorted({token for row in plain for token in row})[:20]
    heavy.generation_config = GenerationConfig(
        repetition_penalty=2.0, suppress_tokens=said, do_sample=True, top_k=1, min_new_tokens=12
    )
    kept = heavy.generation_config
    assert answers(heavy, tokenizer, temperature=temperature) == plain
    assert heavy.generation_config is kept
    ids = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    suggested = heavy.generate(ids, max_new_tokens=12)[0, ids.shape[1] :].tolist()
    assert not set(suggested) & set(said), "the checkpoint itself would answer otherwise"


class Saying:
    """A model whose replies are drawn, or given; counts the rows that it was asked."""

    name_or_path, device, generation_config = "saying", torch.device("cpu"), GenerationConfig()

    def __init__(self, reply: list[int] | None = None, until: int | None = None):
        self.reply, self.until, self.rows, self.settings = reply, until, 0, None

    def eval(self):
        return self

    def generate(self, input_ids, attention_mask, generation_config):
        if self.until is not None and self.rows >= self.until:
            self.rows += len(input_ids)
            raise KeyboardInterrupt
        self.rows += len(input_ids)
        self.settings = generation_config
        drawn = torch.randint(20, 60, (len(input_ids), 6))
        if self.reply:
            drawn = torch.tensor([self.reply]).expand(len(input_ids), -1)
        return torch.cat([input_ids, drawn], dim=1)


def test_a_reply_ends_at_either_end_token(tokenizer):
    turn, text = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert turn != text
    for end in (turn, text):
        model = Saying([30, 31, end, 32, end, 0])
        assert answers(model, tokenizer) == [[30, 31, end]] * len(PROMPTS)
        assert {turn, text} <= set(model.settings.eos_token_id)


def test_the_end_tokens_are_the_templates_the_tokenizers_and_the_checkpoints(tokenizer):
    model = Saying()
    model.generation_config = GenerationConfig(eos_token_id=[7, 9])
    known = {tokenizer.eos_token_id, *template.end_ids(tokenizer)}
    assert set(local.stop_ids(model, tokenizer)) == {7, 9} | known


def test_a_kill_asks_at_most_one_in_a_hundred_again(tokenizer, tmp_path):
    prompts = [f"{i % 90}+{i // 90}" for i in range(6400)]

    def ask(model, name: str) -> list[list[int]]:
        kept = Journal(tmp_path / name)
        return local.sample(model, tokenizer, prompts, max_new_tokens=6, seed=3, journal=kept)

    whole = Saying()
    expected = ask(whole, "whole.jsonl")
    assert whole.rows == 6400 and len({tuple(row) for row in expected}) > 6000
    cut, again = Saying(until=6400 * 2 // 5), Saying()
    with pytest.raises(KeyboardInterrupt):
        ask(cut, "cut.jsonl")
    assert ask(again, "cut.jsonl") == expected
    assert cut.rows + again.rows - 6400 <= 64
    assert ask(Saying(until=0), "cut.jsonl") == expected, "nothing is asked twice"


def test_other_settings_or_another_model_are_asked_anew(tokenizer, tmp_path):
    kept = Journal(tmp_path / "replies.jsonl")
    answers(Saying(), tokenizer, journal=kept)
    other = Saying()
    other.name_or_path = "another"
    how = [(Saying(), {"seed": 1}), (Saying(), {"temperature": 0.5}), (other, {})]
    for model, changed in how:
        answers(model, tokenizer, journal=kept, **changed)
        assert model.rows == len(PROMPTS)
    same = Saying(until=0)
    answers(same, tokenizer, journal=kept)


def test_replies_come_in_the_order_of_the_prompts_whatever_the_batches(tokenizer):
    """Every reply is that of its own prompt: the stand-in repeats the prompt's last two tokens."""

    class Echo(Saying):
        def generate(self, input_ids, attention_mask, generation_config):
            return torch.cat([input_ids, input_ids[:, -2:]], dim=1)

    prompts = ["1+2+3+4+5+6", "7", "1+2", "3+4+5", "8+9"]
    expected = [tokenizer("0" + p, add_special_tokens=False)["input_ids"][-2:] for p in prompts]
    seen = []
    got = local.sample(
        Echo(), tokenizer, ["0" + p for p in prompts], max_new_tokens=2, batch_size=2,
        on_batch=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert got == expected and seen == [(2, 5), (4, 5), (5, 5)]


def test_a_tokenizer_without_padding_is_a_user_error(tokenizer, model):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    with pytest.raises(UserError, match="pad token"):
        answers(model, bare)


def test_nothing_to_ask_is_no_reply(model, tokenizer):
    """Where every vote is for one mode, the other mode's teacher has no queries."""
    assert local.sample(model, tokenizer, [], max_new_tokens=4) == []
