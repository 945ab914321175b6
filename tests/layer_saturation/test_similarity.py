"""Layer saturation: hand-computed metrics, the streaming sums, skip and repeat damage."""

from types import SimpleNamespace

import decoder
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import dispatch_model
from torch.utils.flop_counter import FlopCounterMode

from katlab import UserError
from katlab.layer_saturation import damage as layer_damage
from katlab.layer_saturation import similarity
from katlab.layer_saturation.damage import measure as damage
from katlab.layer_saturation.damage import replaced, token_losses
from katlab.layer_saturation.passes import decoder_layers
from katlab.layer_saturation.similarity import Saturation, measure, token_masks


def tiny(layers: int = 4, kind: str = "qwen2"):
    made = decoder.tiny(kind, num_hidden_layers=layers, pad_token_id=0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3.0)  # updates large enough to see
    return made


def text(sequences: int = 6, length: int = 20, seed: int = 1) -> list[dict]:
    ids = torch.randint(1, 61, (sequences, length), generator=torch.Generator().manual_seed(seed))
    return [
        {
            "input_ids": ids[i : i + 2],
            "attention_mask": torch.ones_like(ids[i : i + 2]),
            "domain": ["math", "code"],
            "mode": ["on", "on"] if i else ["off", "on"],
        }
        for i in range(0, sequences, 2)
    ]


def states(model, ids):
    return model.model(ids, output_hidden_states=True).hidden_states


@torch.no_grad()
def test_influence_is_one_minus_the_mean_cosine_of_input_and_output():
    model, batches = tiny(), text()
    found = measure(model, batches).overall
    for layer in range(3):  # the last output is not among hidden_states before the norm
        cosines = []
        for batch in batches:
            hidden = states(model, batch["input_ids"])
            pair = hidden[layer][:, 4:], hidden[layer + 1][:, 4:]
            cosines.append(torch.cosine_similarity(*pair, dim=-1))
        expected = 1 - torch.cat(cosines).mean()
        assert found.influence[layer] == pytest.approx(float(expected), abs=1e-5)


@torch.no_grad()
def test_update_norms_and_shares_by_hand():
    model, batch = tiny(1), text(2)[0]
    layer, x = model.model.layers[0], model.model.embed_tokens(batch["input_ids"])
    caught = []
    hook = layer.self_attn.register_forward_hook(lambda m, a, out: caught.append(out[0]))
    y = saturation_output(model, batch["input_ids"])
    hook.remove()
    attention = caught[0]
    mlp = y - x - attention
    row = measure(model, [batch]).overall.iloc[0]
    x, y, attention, mlp = (state[:, 4:] for state in (x, y, attention, mlp))  # past the sinks
    size = x.norm(dim=-1)
    for name, value in {
        "update": (y - x).norm(dim=-1) / size,
        "attention": attention.norm(dim=-1) / size,
        "mlp": mlp.norm(dim=-1) / size,
        "attention_share": attention.norm(dim=-1) / (attention.norm(dim=-1) + mlp.norm(dim=-1)),
    }.items():
        assert row[name] == pytest.approx(float(value.mean()), rel=1e-4), name


def saturation_output(model, ids):
    """The last layer's output before the final norm."""
    out = []
    hook = model.model.layers[-1].register_forward_hook(lambda m, a, o: out.append(o))
    model.model(ids)
    hook.remove()
    return out[0][0] if isinstance(out[0], tuple) else out[0]


def test_a_layer_that_adds_nothing_is_fully_saturated():
    model = tiny()
    with torch.no_grad():
        model.model.layers[2].self_attn.o_proj.weight.zero_()
        model.model.layers[2].mlp.down_proj.weight.zero_()
    rows = measure(model, text()).overall
    assert rows.influence[2] == pytest.approx(0.0, abs=1e-7)
    assert rows.influence.idxmin() == 2


def test_one_pass_does_not_depend_on_how_the_text_is_batched():
    model, batches = tiny(), text()
    one = {k: torch.cat([b[k] for b in batches]) for k in ("input_ids", "attention_mask")} | {
        k: sum((b[k] for b in batches), []) for k in ("domain", "mode")
    }
    apart, joined = measure(model, batches).layers, measure(model, [one]).layers
    apart = apart.sort_values(["group", "layer"]).influence.to_numpy()
    np.testing.assert_allclose(
        apart, joined.sort_values(["group", "layer"]).influence.to_numpy(), rtol=1e-6
    )


def test_what_is_saved_is_what_is_loaded(tmp_path):
    found = measure(tiny(), [text(2)[0]])
    found.save(tmp_path)
    loaded = Saturation.load(tmp_path)
    pd.testing.assert_frame_equal(loaded.layers, found.layers)
    np.testing.assert_array_equal(loaded.angular, found.angular)
    assert loaded.layers.influence.tolist() == found.layers.influence.tolist(), "to the last bit"


def test_padding_and_first_tokens_stay_out():
    model, batch = tiny(), text(2)[0]
    plain = measure(model, [batch]).overall
    ids = torch.cat([batch["input_ids"], torch.zeros(2, 7, dtype=torch.long)], dim=1)
    mask = torch.cat([batch["attention_mask"], torch.zeros(2, 7, dtype=torch.long)], dim=1)
    padded = measure(model, [{"input_ids": ids, "attention_mask": mask}]).overall
    np.testing.assert_allclose(padded.influence, plain.influence, rtol=1e-5)
    left = {"input_ids": ids.flip(1), "attention_mask": mask.flip(1)}
    for padded, first in ((batch, 0), (left, 7)):
        counted, apart = token_masks(padded)
        assert (counted.sum(), apart.sum()) == (32, 8)
        assert apart[:, first : first + 4].all() and not counted[:, : first + 4].any()
    assert set(measure(model, [batch]).layers.group) == {
        "all", "first tokens", "domain=math", "domain=code", "mode=off", "mode=on"
    }  # fmt: skip


def test_groups_are_means_over_their_own_sequences():
    model, batches = tiny(), text()
    rows = measure(model, batches).layers.set_index(["group", "layer"]).influence
    parts = (rows["domain=math"] + rows["domain=code"]) / 2  # equally many tokens
    np.testing.assert_allclose(parts, rows["all"], rtol=1e-6)


def test_intervals_hold_the_mean_and_are_zero_for_equal_sequences():
    model, batches = tiny(), text(12)
    rows = measure(model, batches).overall
    assert (rows.influence_low <= rows.influence).all()
    assert (rows.influence <= rows.influence_high).all()
    assert (rows.influence_low < rows.influence_high).all()
    same = [{"input_ids": text(2)[0]["input_ids"][:1].repeat(4, 1)}]
    rows = measure(model, same).overall
    np.testing.assert_allclose(rows.influence_low, rows.influence_high, rtol=1e-6)


@torch.no_grad()
def test_the_depth_map_is_the_mean_angle_over_pi():
    model, batch = tiny(), text(2)[0]
    found = measure(model, [batch]).angular
    assert found.shape == (5, 5) and np.allclose(np.diag(found), 0)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    hidden = [state[:, 4:] for state in states(model, batch["input_ids"])]  # past the sinks
    angle = torch.cosine_similarity(hidden[0], hidden[3], dim=-1).clamp(-1, 1).arccos() / torch.pi
    assert found[0, 3] == pytest.approx(float(angle.mean()), abs=1e-5)


def test_measuring_runs_the_decoder_once_and_leaves_no_hook(monkeypatch):
    monkeypatch.setattr(similarity, "MAP_POSITIONS", 1)
    model, batches = tiny(), text(2)
    with FlopCounterMode(display=False) as plain:
        model.model(batches[0]["input_ids"])
    with FlopCounterMode(display=False) as measured:
        measure(model, batches)
    assert measured.get_total_flops() < 1.01 * plain.get_total_flops()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_skip_damage_equals_a_model_without_the_layer(kind):
    model, batches = tiny(3, kind), text(4)
    rows = damage(model, batches).query("group == 'all'")
    layers = decoder_layers(model)
    for i in range(3):
        kept = layers[i]
        own = [torch.cat([token_losses(model, b)[:, 4:] for b in batches]).mean()]
        model.model.layers = torch.nn.ModuleList([x for x in layers if x is not kept])
        model.config.num_hidden_layers = 2
        own.append(torch.cat([token_losses(model, b)[:, 4:] for b in batches]).mean())
        model.model.layers, model.config.num_hidden_layers = layers, 3
        assert rows["skip"].iloc[i] == pytest.approx(float((own[1] - own[0]).detach()), abs=1e-5)


def test_repeat_damage_equals_a_model_that_runs_the_layer_twice():
    model, batches = tiny(3), text(2)
    rows = damage(model, batches).query("group == 'all'")
    layer = decoder_layers(model)[1]
    forward = layer.forward
    with (
        torch.no_grad(),
        replaced(
            decoder_layers(model), {1: lambda h, *a, **k: forward(forward(h, *a, **k), *a, **k)}
        ),
    ):
        twice = token_losses(model, batches[0])[:, 4:].mean()
    with torch.no_grad():
        once = token_losses(model, batches[0])[:, 4:].mean()
    assert rows["repeat"].iloc[1] == pytest.approx(float(twice - once), abs=1e-5)
    assert "forward" not in layer.__dict__, "the layer has its own forward again"


def test_tuple_outputs_are_measured_alike():
    """Older decoders return (hidden, ...) from a layer and take the first."""
    model, batches = tiny(), text(2)
    inner = model.model

    class Layer(torch.nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer, self.self_attn, self.mlp = layer, layer.self_attn, layer.mlp

        def forward(self, hidden, **kwargs):
            return (self.layer(hidden, **kwargs),)

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(Layer(layer) for layer in inner.layers)

        def forward(self, input_ids, attention_mask, use_cache):
            hidden = inner.embed_tokens(input_ids)
            rotary = inner.rotary_emb(hidden, torch.arange(input_ids.shape[1])[None])
            for layer in self.layers:
                hidden = layer(hidden, position_embeddings=rotary)[0]
            return SimpleNamespace(last_hidden_state=inner.norm(hidden))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.base_model, self.device = Decoder(), model.device

        def get_output_embeddings(self):
            return model.lm_head

    expected, found = measure(model, batches).overall, measure(Model(), batches).overall
    np.testing.assert_allclose(found.influence, expected.influence, rtol=1e-5)
    expected, found = (damage(m, batches).query("group == 'all'") for m in (model, Model()))
    np.testing.assert_allclose(found["skip"], expected["skip"], atol=1e-5)
    np.testing.assert_allclose(found["repeat"], expected["repeat"], atol=1e-5)


@torch.no_grad()
def test_token_losses_are_cross_entropy_of_the_next_token(monkeypatch):
    monkeypatch.setattr(layer_damage, "CHUNK", 7)
    model, batch = tiny(), text(2)[0]
    logits = model(batch["input_ids"]).logits
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none"
    )
    found = token_losses(model, batch)
    torch.testing.assert_close(found[:, 1:].flatten(), expected)
    assert (found[:, 0] == 0).all()


def test_labels_choose_the_tokens_that_count():
    batch = text(2)[0]
    batch["labels"] = batch["input_ids"].clone()
    batch["labels"][:, :15] = -100
    counted, first = layer_damage.loss_masks(batch)
    assert counted.sum() == 2 * 5 and first.sum() == 0


def test_mistakes_get_one_sentence():
    with pytest.raises(UserError, match="layers"):
        decoder_layers(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match="No text"):
        measure(tiny(), [])
    with pytest.raises(UserError, match="No text"):
        damage(tiny(), [])


def test_a_dispatched_model_gives_the_same_numbers():
    """accelerate's hooks on every layer, as device_map puts them: the same tables."""
    model, batches = tiny(), text(4)
    expected = measure(model, batches), damage(model, batches)
    dispatch_model(model, {"": "cpu"}, force_hooks=True)
    hooked = [layer.forward for layer in decoder_layers(model)]
    found = measure(model, batches), damage(model, batches)
    pd.testing.assert_frame_equal(found[0].layers, expected[0].layers)
    pd.testing.assert_frame_equal(found[1], expected[1])
    assert [layer.forward for layer in decoder_layers(model)] == hooked
