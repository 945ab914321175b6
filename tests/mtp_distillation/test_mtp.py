"""MTP: the equations by hand, what each depth may see, and modules that leave no trace."""

import decoder
import pytest
import torch

from katlab import UserError
from katlab.mtp_distillation import mtp

FAMILIES = ("qwen2", "qwen3", "llama")


def tiny(family: str = "qwen2"):
    narrow = dict(
        hidden_size=16, intermediate_size=32, num_attention_heads=2, num_key_value_heads=1
    )
    sharp = dict(initializer_range=0.4, tie_word_embeddings=True)
    return decoder.tiny(family, vocab_size=40, **narrow, **sharp)


def inputs(rows: int = 2, length: int = 9):
    torch.manual_seed(1)
    ids = torch.randint(40, (rows, length))
    return ids, torch.ones_like(ids)


def test_targets_by_hand():
    labels = torch.tensor([[-100, -100, 7, 8], [-100, 5, 6, -100]])
    row, at = mtp.targets(labels, 0)
    assert list(zip(row.tolist(), at.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 1), (1, 2)]
    row, at = mtp.targets(labels, 1)  # (1, 1) would stand at position -1
    assert list(zip(row.tolist(), at.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 2)]


@pytest.mark.parametrize("side", ["state", "token"])
def test_equation_21_by_hand(side):
    model = tiny()
    layer = mtp.attach(model, 1).layers[0]
    with torch.no_grad():  # a decoder layer that adds nothing, a projection that picks one half
        layer.block.self_attn.o_proj.weight.zero_()
        layer.block.mlp.down_proj.weight.zero_()
        layer.input_proj.weight.zero_()
        layer.input_proj.weight[:, 0 if side == "state" else 16 :][:, :16] = torch.eye(16)
    ids, mask = inputs()
    with torch.no_grad():
        before = model.model.layers[1].register_forward_hook(lambda _, i, o: states.append(o))
        states = []
        _, ahead = mtp.states(model, ids, mask)
        before.remove()
    picked = states[0][:, :-1] if side == "state" else model.model.embed_tokens(ids)[:, 1:]
    expected = picked / picked.pow(2).mean(-1, keepdim=True).sqrt()  # RMSNorm, unit weights
    torch.testing.assert_close(ahead, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_k_at_i_sees_the_tokens_up_to_i_plus_k_and_no_further(family):
    model = tiny(family)
    mtp.attach(model, 3)
    ids, mask = inputs(rows=1)
    changed, j = ids.clone(), 5
    changed[0, j] = (ids[0, j] + 1) % 40
    with torch.no_grad():
        pairs = zip(mtp.states(model, ids, mask), mtp.states(model, changed, mask), strict=True)
        for k, (one, other) in enumerate(pairs):
            assert one.shape == (1, 9 - k, 16)
            differs = (one - other).abs().amax(-1)[0] > 1e-6
            assert differs.tolist() == [i + k >= j for i in range(9 - k)]


def test_padding_on_the_right_changes_nothing():
    model = tiny()
    mtp.attach(model, 2)
    ids, mask = inputs()
    padded = torch.cat([ids, torch.zeros(2, 4, dtype=ids.dtype)], 1)
    wide = torch.cat([mask, torch.zeros(2, 4, dtype=mask.dtype)], 1)
    with torch.no_grad():
        short, long = mtp.states(model, ids, mask), mtp.states(model, padded, wide)
        for one, other in zip(short, long, strict=True):
            torch.testing.assert_close(one, other[:, : one.shape[1]], atol=1e-5, rtol=1e-4)


def test_embedding_and_head_are_the_students_own():
    model = tiny()
    module = mtp.attach(model, 1)
    assert not [name for name, _ in module.named_parameters() if "embed" in name or "head" in name]
    _, ahead = mtp.states(model, *inputs())
    model.lm_head(ahead).sum().backward()
    assert model.model.embed_tokens.weight.grad.abs().sum() > 0
    assert all(p.grad is not None for p in module.parameters())


def test_attached_and_detached_the_student_is_the_same():
    model = tiny()
    ids, mask = inputs()
    names = set(model.state_dict())
    with torch.no_grad():
        plain = model(ids).logits
        mtp.attach(model, 2)
        torch.testing.assert_close(model(ids).logits, plain, atol=0, rtol=0)
        torch.testing.assert_close(model.lm_head(mtp.states(model, ids, mask)[0]), plain)
    assert set(mtp.without(model.state_dict())) == names != set(model.state_dict())
    mtp.detach(model)
    assert set(model.state_dict()) == names and len(mtp.states(model, ids, mask)) == 1


def test_modules_are_saved_apart(tmp_path):
    model, other = tiny(), tiny()
    mtp.save(mtp.attach(model, 2), tmp_path)
    module = mtp.attach(other, 2)
    with torch.no_grad():
        module.layers[1].input_proj.weight.add_(1.0)
    mtp.load(module, tmp_path)
    for ours, theirs in zip(model.mtp.parameters(), module.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with pytest.raises(UserError, match="MTP arm"):
        mtp.load(module, tmp_path / "elsewhere")


def test_lambda_drops_after_ten_of_14_8_parts():
    assert [mtp.weight(x, 0.3, 0.1) for x in (0.0, 0.67, 0.68, 1.0)] == [0.3, 0.3, 0.1, 0.1]


def test_acceptance_by_hand(monkeypatch):
    model = tiny()
    model.lm_head = torch.nn.Identity()
    choose = torch.eye(4)
    own = choose[torch.tensor([[0, 1, 2, 3]])]  # predicts tokens 1..4
    ahead = choose[torch.tensor([[1, 0, 3]])]  # predicts tokens 2..4
    monkeypatch.setattr(mtp, "states", lambda *_: [own, ahead])
    ids = torch.tensor([[9, 9, 1, 1]])
    labels = torch.tensor([[-100, -100, 1, 1]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    # token 2: own says 1, draft (position 0) says 1; token 3: own says 2, draft says 0
    for chunk in (1, 4096):
        assert mtp.acceptance(model, batch, chunk)[0].tolist() == [[-1, -1, 1, 0]]


def test_acceptance_asks_the_head_for_few_reply_positions_at_once():
    model = tiny()
    mtp.attach(model, 2)
    ids, mask = inputs(rows=3, length=12)
    labels = ids.masked_fill(torch.arange(12) < 7, -100)
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(output.shape))
    mtp.acceptance(model, {"input_ids": ids, "attention_mask": mask, "labels": labels}, chunk=4)
    assert max(shape[0] for shape in seen) <= 4
    assert sum(shape[0] for shape in seen) == 3 * 3 * 5  # depths x rows x reply tokens


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_modules_are_float32_and_fit_a_student_of_any_dtype(dtype):
    model = tiny().to(dtype)
    module = mtp.attach(model, 2)
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    found = mtp.states(model, *inputs())
    assert {state.dtype for state in found} == {dtype}
    assert all(model.lm_head(state).isfinite().all() for state in found)


def test_no_module_is_no_depth():
    with pytest.raises(UserError, match="mtp_depth"):
        mtp.attach(tiny(), 0)
