"""ULD: bytes pair the tokens, sorted L1 by hand, top-K against the whole, what a teacher leaves."""

import decoder
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from katlab import UserError
from katlab.mtp_distillation import alignment, uld

probabilities = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12).map(
    lambda values: torch.tensor([v + 1e-3 for v in values], dtype=torch.float64)
)


def byte_tokenizer(merge: list[str], vocab_size: int = 256) -> PreTrainedTokenizerFast:
    """A byte-level BPE that learns its merges from `merge`; without room for any, one byte each."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        merge,
        trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False, min_frequency=1
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe)


def teacher():
    return decoder.tiny(vocab_size=300, initializer_range=0.5)


def full_uld(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The paper's sum over all ranks, the shorter distribution padded with zeros."""
    size = max(len(p), len(q))
    ours, theirs = (
        nn.functional.pad(x.sort(descending=True).values, (0, size - len(x))) for x in (p, q)
    )
    return (ours - theirs).abs().sum()


def top_uld(p: torch.Tensor, q: torch.Tensor, k: int) -> torch.Tensor:
    return uld.sorted_l1(*uld.sorted_top(q, k), *uld.sorted_top(p, k))


def test_byte_ends_count_bytes_and_not_characters():
    tok = byte_tokenizer([])
    assert alignment.byte_ends(tok, "aé€") == [1, 2, 3, 4, 5, 6]
    tok.add_tokens(["<é>"])
    assert alignment.byte_ends(tok, "a<é>b") == [1, 5, 6]


def test_a_tokenizer_that_is_not_byte_level_is_refused():
    words = Tokenizer(models.WordLevel({"two": 0, "words": 1, "?": 2}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = PreTrainedTokenizerFast(tokenizer_object=words)
    assert alignment.byte_ends(tok, "two  words") is None
    with pytest.raises(UserError, match="byte-level"):
        uld.capture(teacher(), tok, ["two"], ["two  words"], top_k=3)


NORMALISED = [  # normaliser, text, where its tokens of one byte each end in it
    (normalizers.NFC(), "caf\u00e9", [1, 2, 3, 4, 5]),
    (normalizers.NFC(), "cafe\u0301s", [1, 2, 3, 6, 6, 7]),
    (normalizers.NFC(), "\u212bb", [3, 3, 4]),
    (normalizers.NFC(), "\u1112\u1161\u11ab.", [9, 9, 9, 10]),
    (normalizers.NFD(), "\u00e9s", [2, 2, 2, 3]),
    (normalizers.NFKC(), "\ufb01x", [3, 3, 4]),
    (normalizers.Lowercase(), "ABc", [1, 2, 3]),
    (normalizers.Replace("  ", " "), "a  b", None),
    (normalizers.Prepend("_"), "ab", None),
]


@pytest.mark.parametrize(("normaliser", "text", "ends"), NORMALISED)
def test_a_token_of_normalised_text_ends_where_its_character_does(normaliser, text, ends):
    tok = byte_tokenizer([])
    tok.backend_tokenizer.normalizer = normaliser
    assert alignment.byte_ends(tok, text) == ends


def test_a_reply_that_the_tokenizer_changes_is_left_out_and_the_others_are_read(tmp_path):
    tok = byte_tokenizer([])
    tok.backend_tokenizer.normalizer = normalizers.Replace("  ", " ")
    replies = ["the  cafe", "the cafe", ""]
    found = uld.capture(teacher(), tok, ["a", "b", "c"], replies, top_k=3)
    assert [signal is None for signal in found] == [True, False, True]
    [alone] = uld.capture(teacher(), tok, ["b"], replies[1:2], top_k=3)
    for ours, theirs in zip(found[1], alone, strict=True):
        torch.testing.assert_close(ours, theirs)
    uld.save(found, tmp_path / "signal.safetensors")
    read = uld.load(tmp_path / "signal.safetensors")
    assert [signal is None for signal in read] == [True, False, True]
    assert torch.equal(read[1].top, found[1].top)


def test_capture_keeps_no_cache():
    model, calls = teacher(), []
    assert model.config.use_cache
    model.get_decoder().register_forward_hook(
        lambda _, args, kwargs, output: calls.append((kwargs["use_cache"], output.past_key_values)),
        with_kwargs=True,
    )
    uld.capture(model, byte_tokenizer([]), ["a", "b"], ["yes", "no"], top_k=3, batch_size=1)
    assert calls == [(False, None)] * 2


def test_capture_in_parts_is_capture_in_one():
    whole, parts = (
        uld.capture(teacher(), byte_tokenizer([]), ["ask"], ["a reply"], top_k=3, chunk=chunk)[0]
        for chunk in (4096, 2)
    )
    for ours, theirs in zip(whole, parts, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_shorter_signal_is_what_a_smaller_k_captures():
    asked = (teacher(), byte_tokenizer([]), ["a"], ["three \u00e9"])
    [long], [short] = uld.capture(*asked, top_k=8), uld.capture(*asked, top_k=2)
    for ours, theirs in zip(uld.shorter(long, 2), short, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_align_by_hand():
    # "1", "2", "+", "3" against "12", "+", "3"
    groups = alignment.align([1, 2, 3, 4], [2, 3, 4], 0, 0, 4)
    assert groups == [((0, 2), (0, 1)), ((2, 3), (1, 2)), ((3, 4), (2, 3))]
    assert [group.one_to_one for group in groups] == [False, True, True]


def test_align_leaves_out_tokens_that_reach_over_the_border():
    # the segment is bytes 2..6 of ours and 1..5 of theirs; our second token covers bytes 1..4
    assert alignment.align([1, 4, 6, 8], [1, 2, 3, 5], 2, 1, 4) == [((2, 3), (3, 4))]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=20), st.data())
def test_groups_tile_both_sides_and_cannot_be_finer(lengths, data):
    ours = torch.tensor(lengths).cumsum(0).tolist()
    cuts = data.draw(st.sets(st.integers(1, ours[-1])))
    theirs = sorted(cuts | {ours[-1]})
    groups = alignment.align(ours, theirs, 0, 0, ours[-1])
    for side, ends in ((0, ours), (1, theirs)):
        covered = [token for group in groups for token in range(*group[side])]
        assert covered == list(range(len(ends)))
    for (first, last), (start, stop) in groups:
        assert ours[last - 1] == theirs[stop - 1]
        assert not set(ours[first : last - 1]) & set(theirs[start : stop - 1])


def test_pieces_show_what_faces_what():
    student, packed = byte_tokenizer([]), byte_tokenizer(["12"] * 9, vocab_size=257)
    assert alignment.pieces(student, packed, "12+3") == [
        (["1", "2"], ["12"]),
        (["+"], ["+"]),
        (["3"], ["3"]),
    ]


def test_sorted_l1_by_hand():
    p, q = torch.tensor([0.1, 0.7, 0.2]), torch.tensor([0.5, 0.5])
    assert top_uld(p, q, 3).item() == pytest.approx(0.2 + 0.3 + 0.1)
    assert top_uld(p, q, 2).item() == pytest.approx(0.2 + 0.3 + 0.1)  # the tail bucket has the 0.1
    assert top_uld(p, q, 1).item() == pytest.approx(0.2 + 0.2)


@given(probabilities, probabilities, st.integers(1, 14))
@settings(deadline=None)
def test_top_k_with_its_tail_is_within_both_tails_of_full_uld(p, q, k):
    p, q = p / p.sum(), q / q.sum()
    full, short = full_uld(p, q), top_uld(p, q, k)
    tails = uld.sorted_top(p, k)[1] + uld.sorted_top(q, k)[1]
    assert full - tails - 1e-9 <= short <= full + 1e-9
    assert top_uld(p, q, k + 1) >= short - 1e-9
    if k >= max(len(p), len(q)):
        assert short == pytest.approx(full.item(), abs=1e-9)


@given(probabilities, st.randoms())
@settings(deadline=None)
def test_token_identity_does_not_matter(p, rng):
    p = p / p.sum()
    shuffled = p[torch.tensor(rng.sample(range(len(p)), len(p)))]
    assert top_uld(p, shuffled, 5).item() == pytest.approx(0.0, abs=1e-9)


def test_chunk_loss_by_hand():
    logp = torch.tensor([0.5, 0.5, 0.9]).log()
    group, theirs = torch.tensor([0, 0, -1]), torch.tensor([0.75]).log()
    assert uld.chunk_losses(logp, group, theirs).tolist() == pytest.approx([2 * (0.75 - 0.25)])


def batch(n: int = 7, d: int = 5, v: int = 11, k: int = 4):
    torch.manual_seed(1)
    hidden = torch.randn(n, d, requires_grad=True)
    head = nn.Linear(d, v, bias=False)
    labels = torch.randint(v, (n,))
    signal = torch.tensor([0, -1, 1, 2, -1, 3, 0])[:n]
    top, tail = uld.sorted_top(torch.randn(4, v).mul(2).softmax(-1), k)
    return hidden, head, labels, signal, top, tail


def test_token_losses_against_the_plain_formula():
    hidden, head, labels, signal, top, tail = batch()
    found = uld.token_losses(hidden, head, labels, signal, top, tail, temperature=2.0)
    logits = head(hidden).detach()
    cross_entropy = nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(-found.logp, cross_entropy)
    assert found.best.tolist() == logits.argmax(-1).tolist()
    for i, row in enumerate(signal.tolist()):
        q, q_tail = uld.sorted_top((logits[i] / 2.0).softmax(-1), 4)
        expected = (q - top[row]).abs().sum() + (q_tail - tail[row]).abs() if row >= 0 else 0.0
        assert found.uld[i].item() == pytest.approx(float(torch.as_tensor(expected)), abs=1e-6)


def test_chunks_change_neither_losses_nor_gradients():
    gradients = []
    for chunk in (100, 3):
        hidden, head, *rest = batch()
        found = uld.token_losses(hidden, head, *rest, chunk=chunk)
        (found.uld.sum() - found.logp.sum()).backward()
        gradients.append((found.logp, found.uld, hidden.grad, head.weight.grad))
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts)


def test_capture_row_t_is_the_prediction_of_token_t():
    tok, model = byte_tokenizer([]), teacher()
    prompts, replies = ["ask: ", "a longer question: "], ["yes é", "no"]
    signals = uld.capture(model, tok, prompts, replies, top_k=300, temperature=1.5)
    for prompt, reply, signal in zip(prompts, replies, signals, strict=True):
        head, tail = tok(prompt)["input_ids"], tok(reply)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([head + tail])).logits[0]
        assert signal.ends.tolist() == alignment.byte_ends(tok, reply)
        for t, token in enumerate(tail):
            before = logits[len(head) + t - 1]
            expected = (before / 1.5).softmax(-1).sort(descending=True).values
            torch.testing.assert_close(signal.top[t].float(), expected, atol=1e-3, rtol=1e-2)
            assert signal.logp[t].item() == pytest.approx(
                before.log_softmax(-1)[token].item(), 1e-4
            )


def test_signals_survive_the_disk(tmp_path):
    replies = ["one", "three é"]
    signals = uld.capture(teacher(), byte_tokenizer([]), ["a", "b"], replies, top_k=3)
    uld.save(signals, tmp_path / "signal.safetensors")
    for kept, read in zip(signals, uld.load(tmp_path / "signal.safetensors"), strict=True):
        for ours, theirs in zip(kept, read, strict=True):
            assert torch.equal(ours, theirs)
