"""Other decoders: each starts as its plan says, or is refused before a byte is written."""

import json
import re
import time

import numpy as np
import pytest
import torch
from parents import LAYERS, logits, parent_of, planned, reconfigure
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from katlab import UserError
from katlab.layer_saturation import architectures, mergekit, probe, verify, writer
from katlab.layer_saturation import child as children
from katlab.layer_saturation.plan import plan
from katlab.layer_saturation.safetensors_bytes import scaled
from katlab.layer_saturation.safetensors_layout import read_config, stored

WINDOW = {"sliding_window": 4}
MIXTURE = {"num_local_experts": 4, "num_experts_per_tok": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
LATENT = dict(
    q_lora_rank=8, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4,
    n_routed_experts=4, n_group=1, topk_group=1, num_experts_per_tok=2, moe_intermediate_size=8,
    num_key_value_heads=4, first_k_dense_replace=2,
)  # fmt: skip
FAMILIES = {  # model_type: what it needs beyond SIZES
    "llama": {"attention_bias": True, "mlp_bias": True},
    "qwen2": {},
    "qwen3": {},
    "mistral": WINDOW,
    "phi3": WINDOW,
    "phi": {},
    "granite": {"residual_multiplier": 0.3},
    "cohere": {},
    "cohere2": WINDOW | {"sliding_window_pattern": 3},
    "smollm3": {"no_rope_layer_interval": 3},
    "gemma2": WINDOW,
    "gemma3_text": WINDOW | {"sliding_window_pattern": 3},
    "olmo2": {},
    "olmo3": WINDOW,
    "exaone4": WINDOW,
    "glm4": {},
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 8, "decoder_sparse_step": 2},
    "qwen3_moe": EXPERTS | {"mlp_only_layers": [0, 2]},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": MIXTURE,
    "gpt_oss": WINDOW | MIXTURE,
    "deepseek_v3": LATENT,
    "gpt_neox": {},
    "starcoder2": {},
}


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_starts_as_its_plan_says(kind, tmp_path):
    model, said = parent_of(kind, tmp_path / "parent", **FAMILIES[kind]), {}
    for start in ("copy", "zero", "half-step"):
        writer.write(tmp_path / "parent", tmp_path / start, planned(start))
        verify.files(tmp_path / "parent", tmp_path / start, planned(start))
        said[start] = logits(AutoModelForCausalLM.from_pretrained(tmp_path / start))
    assert distance(said["zero"], logits(model)) < 1e-6
    assert distance(said["half-step"], said["copy"]) > 0.05
    with children.upscaled(model, planned()) as deeper:
        assert distance(said["half-step"], logits(deeper)) < 1e-4


@pytest.mark.parametrize("kind", ["gemma2", "olmo2"])
def test_norms_of_bfloat16_are_scaled_to_the_bit(kind, tmp_path):
    parent_of(kind, tmp_path / "parent", torch.bfloat16)
    for start in ("zero", "half-step"):
        writer.write(tmp_path / "parent", tmp_path / start, planned(start))
        verify.files(tmp_path / "parent", tmp_path / start, planned(start))
    parent, zero = (
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto"))
        for name in ("parent", "zero")
    )
    assert torch.equal(zero, parent)


def test_one_plus_a_weight_is_scaled():
    values = np.array([0.5, 0.0, -1.0, 3.0], np.float32)
    halved = np.frombuffer(scaled(values, 0.5, "F32", 1.0), np.float32)
    assert halved.tolist() == [-0.25, -0.5, -1.0, 1.0]
    assert np.frombuffer(scaled(values, 0.0, "F32", 1.0), np.float32).tolist() == [-1.0] * 4


# What the parent's config.json says of its layers, and what the child's must say. The layers of
# `planned` are 0 1 1 2 3 4 4 5 5 or, stacked, 0 1 1 2 3 4 5 4 5.
F, S = "full_attention", "sliding_attention"
BY_LAYER = [
    ("smollm3", {"no_rope_layers": [1, 0, 1, 1, 0, 1]},
     {"no_rope_layers": [1, 0, 0, 1, 1, 0, 0, 1, 1]}),
    ("smollm3", {"no_rope_layer_interval": 3},
     {"no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0, 0], "no_rope_layer_interval": None}),
    ("gemma2", WINDOW, {"layer_types": [S, F, F, S, F, S, S, F, F]}),
    ("gemma3_text", WINDOW | {"sliding_window_pattern": 3},
     {"layer_types": [S, S, S, F, S, S, S, F, F], "sliding_window_pattern": None}),
    ("cohere2", WINDOW | {"sliding_window_pattern": 2},
     {"layer_types": [S, F, F, S, F, S, S, F, F], "sliding_window_pattern": None}),
    ("qwen2", WINDOW | {"use_sliding_window": True, "max_window_layers": 2},
     {"max_window_layers": 3}),
    ("qwen3_moe", EXPERTS | {"mlp_only_layers": [0, 4]}, {"mlp_only_layers": [0, 5, 6]}),
    ("qwen2_moe", EXPERTS | {"shared_expert_intermediate_size": 8, "decoder_sparse_step": 3},
     {"mlp_only_layers": [0, 1, 2, 4, 5, 6], "decoder_sparse_step": 1}),
    ("deepseek_v3", LATENT, {"first_k_dense_replace": 3}),
]  # fmt: skip
LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")


@pytest.mark.parametrize(("kind", "states", "told"), BY_LAYER)
def test_what_goes_by_layer_follows_the_layers(kind, states, told, tmp_path):
    model = parent_of(kind, tmp_path / "parent", **states)
    reconfigure(tmp_path / "parent", {*LISTS, "no_rope_layer_interval"} - states.keys(), **states)
    made = planned("zero")
    writer.write(tmp_path / "parent", tmp_path / "child", made)
    config = json.loads((tmp_path / "child" / "config.json").read_text())
    assert {key: config.get(key) for key in told} == told
    child = AutoModelForCausalLM.from_pretrained(tmp_path / "child")
    assert distance(logits(child), logits(model)) < 1e-6


def test_window_layers_between_others_are_listed(tmp_path):
    states = WINDOW | {"use_sliding_window": True, "max_window_layers": 5}
    model = parent_of("qwen2", tmp_path / "parent", **states)
    reconfigure(tmp_path / "parent", LISTS)
    writer.write(tmp_path / "parent", tmp_path / "child", planned("zero", "stacked"))
    config = json.loads((tmp_path / "child" / "config.json").read_text())
    assert config["layer_types"] == [F] * 6 + [S, F, S]
    child = AutoModelForCausalLM.from_pretrained(tmp_path / "child")
    assert distance(logits(child), logits(model)) < 1e-6


REFUSED_CONFIGURATIONS = [  # what a Qwen2 parent's config.json says more, and the sentence
    ({"sliding_window_pattern": 2}, "sliding_window_pattern .* cannot be mapped"),
    ({"attn_layer_indices": [1, 3]}, "attn_layer_indices .* cannot be mapped"),
    ({"expert_layer_period": 2}, "expert_layer_period .* cannot be mapped"),
    ({"full_attn_idxs": [1, 3]}, "full_attn_idxs .* cannot be mapped"),
    ({"moe_layers_enum": "1,3,5"}, "moe_layers_enum .* cannot be mapped"),
    ({"hybrid_override_pattern": "M*M*M*"}, "hybrid_override_pattern .* cannot be mapped"),
    ({"num_key_value_heads": 4}, r"has the shape \[8(, 16)?\], and its config"),
    ({"vocab_size": -1}, "does not run"),
    ({"num_attention_heads": 0}, "does not run"),
    ({"rope_scaling": {"type": "spiral"}}, "does not run"),
    ({"widths": [4, 4, 4, 4, 4, 8]}, "widths .* cannot be mapped"),
    ({"layer_types": [F] * 3}, "layer_types in config.json has no entry for layer 3"),
    ({"layer_types": [F] * 5 + ["mystery"]}, "qwen2 cannot be configured so"),
    ({"model_type": "kat9"}, "knows no 'kat9' model"),
    ({"model_type": "t5"}, "does not run"),
    ({"model_type": "qwen3"}, "lacks self_attn.k_norm.weight, unlike qwen3 models"),
    ({"text_config": {"num_hidden_layers": 6}}, "describes its decoder in text_config"),
    ({"quantization_config": {"bits": 4}}, "quantised; upscale the original weights"),
    ({"num_hidden_layers": "6"}, "no number num_hidden_layers"),
    ({"num_hidden_layers": None}, "no number num_hidden_layers"),
    ({"num_hidden_layers": True}, "no number num_hidden_layers"),
    ({"num_hidden_layers": 0}, "no number num_hidden_layers"),
    ({"num_hidden_layers": 5}, "the model has 5; plan again"),
    ({"model_type": None}, "names no model_type"),
    ({"num_attention_heads": "many"}, "cannot be configured so"),
]


@pytest.mark.parametrize(("states", "told"), REFUSED_CONFIGURATIONS)
def test_a_configuration_that_cannot_follow_is_refused(states, told, tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    reconfigure(tmp_path / "parent", **states)
    with pytest.raises(UserError, match=told):
        writer.write(tmp_path / "parent", tmp_path / "child", planned())
    assert not list(tmp_path.glob("child*"))


NAMES = {  # names in a checkpoint: whether they are the decoder's layers
    "model.layers.3.mlp.down_proj.weight": True,
    "layers.3.mlp.down_proj.weight": True,
    "language_model.model.layers.3.mlp.down_proj.weight": True,
    "gpt_neox.layers.3.mlp.dense_4h_to_h.bias": True,
    "visual.encoder.layers.3.mlp.down_proj.weight": False,
    "model.vision_tower.layers.3.mlp.down_proj.weight": False,
    "vision_model.encoder.layers.3.mlp.fc2.weight": False,
    "audio_tower.layers.3.self_attn.o_proj.weight": False,
    "mtp.layers.3.mlp.down_proj.weight": False,
}


@pytest.mark.parametrize(("name", "decoder"), NAMES.items())
def test_only_the_decoders_layers_are_deepened(name, decoder):
    made = plan(4, choice="list", chosen=[3], start="zero")
    expected = [(name, 1.0), (name.replace(".3.", ".4."), 0.0)]
    if name.startswith("layers"):
        expected[1] = ("layers.4.mlp.down_proj.weight", 0.0)
    kind = "gpt_neox" if "neox" in name else "qwen2"
    assert architectures.child_tensors(name, made, kind) == expected[: 1 + decoder]


def test_the_layers_of_a_vision_tower_stay(tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    tower = {f"visual.encoder.layers.{i}.mlp.down_proj.weight": torch.ones(2) * i for i in (0, 1)}
    save_file(load_file(file) | tower, file, {"format": "pt"})
    writer.write(tmp_path / "parent", tmp_path / "child", planned("zero"))
    child = load_file(tmp_path / "child" / "model.safetensors")
    assert {name: t.tolist() for name, t in child.items() if name.startswith("visual")} == {
        name: t.tolist() for name, t in tower.items()
    }


REFUSED_STARTS = [  # model_type, what it needs, start, sentence
    ("granitemoe", MIXTURE, "zero", "begin as"),
    ("granitemoe", MIXTURE, "half-step", "attention and"),
    ("lfm2", {}, "zero", "does not say what its plan says; try --start copy"),
    ("llama4_text", MIXTURE | {"intermediate_size_mlp": 32, "interleave_moe_layer_step": 2}, "copy",
     "does not say what its plan says; upscale another model"),
    ("mamba", {}, "copy", "Layers of mamba models are not known"),
    ("jamba", {"num_experts": 4, "attn_layer_offset": 1, "attn_layer_period": 2}, "copy", "jamba"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "more", "start", "told"), REFUSED_STARTS)
def test_a_start_that_is_not_exact_is_refused(kind, more, start, told, tmp_path):
    parent_of(kind, tmp_path / "parent", **more)
    with pytest.raises(UserError, match=told):
        writer.write(tmp_path / "parent", tmp_path / "child", planned(start))
    assert not list(tmp_path.glob("child*"))


UNNAMED = [  # a residual writer that nobody has named, and what the small copy then shows
    ("starcoder2", "WRITERS", ("self_attn.o_proj",), "zero", "does not say what its plan says"),
    ("gpt_neox", "WRITERS", (), "half-step", "does not say what its plan says"),
    ("mixtral", "WRITERS", ("self_attn.o_proj",), "zero", "does not say what its plan says"),
    ("olmo2", "NORMS_BEHIND", {}, "half-step", "a norm undoes the factor"),
    ("glm4", "NORMS_BEHIND", {}, "half-step", "a norm undoes the factor"),
    ("gemma2", "ONE_ADDED", (), "zero", "does not say what its plan says"),
]


@pytest.mark.parametrize(("kind", "table", "named", "start", "told"), UNNAMED)
def test_the_small_copy_finds_what_is_not_named(
    kind, table, named, start, told, tmp_path, monkeypatch
):
    parent_of(kind, tmp_path / "parent")
    monkeypatch.setattr(architectures, table, named)
    with pytest.raises(UserError, match=told):
        writer.write(tmp_path / "parent", tmp_path / "child", planned(start))


def test_the_small_copy_leaves_the_random_numbers_alone(tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    before = torch.get_rng_state()
    config = read_config(tmp_path / "parent")
    probe.prove(tmp_path / "parent", planned(), architectures.child_config(config, planned()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("renamed", "told"),
    [
        ({"weight": "qweight"}, "quantised; upscale the original"),
        ({"weight": "weight_packed"}, "quantised; upscale the original"),
        ({"mlp.down_proj": "mlp.w_out"}, "lacks mlp.down_proj.weight, unlike qwen2"),
        ({"layers.3": "layers.30"}, "beyond the plan's 6 layers"),
    ],
)
def test_files_of_other_names_are_refused(renamed, told, tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    ((old, new),) = renamed.items()
    tensors = {
        name.replace(old, new) if ".layers." in name and "proj" in name else name: tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match=told):
        writer.write(tmp_path / "parent", tmp_path / "child", planned())


CHANGED = [  # tensors by a pattern, what becomes of them (None: they are left out), what is said
    ("proj.weight$", lambda tensor: tensor.to(torch.int8), "of dtype I8 is quantised"),
    ("proj.weight$", lambda tensor: tensor.to(torch.float8_e4m3fn), "F8_E4M3 is quantised"),
    ("model.norm.weight", None, "lacks model.norm.weight"),
    ("lm_head.weight", None, "lacks lm_head.weight"),
    ("layers.3.*down_proj.weight", lambda tensor: tensor[:, 1:], r"has the shape \[16, 31\]"),
    ("embed_tokens", lambda tensor: tensor[1:], r"has the shape \[63, 16\]"),
]


@pytest.mark.parametrize(("pattern", "change", "told"), CHANGED)
@pytest.mark.parametrize("start", ["copy", "zero"])
def test_tensors_that_the_configuration_does_not_have_are_refused(
    pattern, change, told, start, tmp_path
):
    parent_of("qwen2", tmp_path / "parent")
    file, tensors = tmp_path / "parent" / "model.safetensors", {}
    for name, tensor in load_file(file).items():
        hit = bool(re.search(pattern, name))
        tensors |= {} if hit and not change else {name: change(tensor) if hit else tensor}
    save_file({n: t.contiguous() for n, t in tensors.items()}, file, {"format": "pt"})
    with pytest.raises(UserError, match=told):
        writer.write(tmp_path / "parent", tmp_path / "child", planned(start))
    assert not list(tmp_path.glob("child*"))


def test_a_prefix_that_the_architecture_does_not_read_is_refused(tmp_path):
    parent_of("qwen2", tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    tensors = {f"language_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(UserError, match="lacks lm_head.weight"):
        writer.write(tmp_path / "parent", tmp_path / "child", planned())


def test_an_adapter_beside_the_weights_is_refused(tmp_path):
    parent_of("qwen2", tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="merge it into the model first"):
        read_config(tmp_path)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_a_note_of_quantisation_beside_the_configuration_counts(name, tmp_path):
    parent_of("qwen2", tmp_path)
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="quantised; upscale the original weights"):
        read_config(tmp_path)


def test_old_buffers_and_biases_that_are_left_out_do_no_harm(tmp_path):
    """Releases before 4.31 wrote rotary frequencies; a bias that is missing is loaded as zero."""
    model = parent_of("qwen2", tmp_path / "parent")
    file = tmp_path / "parent" / "model.safetensors"
    tensors = {n: t for n, t in load_file(file).items() if not n.endswith("k_proj.bias")}
    old = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(2) for i in range(LAYERS)}
    save_file(tensors | old, file, {"format": "pt"})
    writer.write(tmp_path / "parent", tmp_path / "child", planned("zero"))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.k_proj.bias.zero_()
    child = AutoModelForCausalLM.from_pretrained(tmp_path / "child")
    assert torch.equal(logits(child), logits(model))


@pytest.mark.parametrize(
    ("kind", "filters"),
    [
        ("qwen2", {"self_attn.o_proj", "mlp.down_proj"}),
        ("mixtral", {"self_attn.o_proj", "w2"}),
        ("gpt_neox", {"attention.dense", "mlp.dense_4h_to_h"}),
        ("glm4", {"post_self_attn_layernorm", "post_mlp_layernorm"}),
        ("gemma2", None),
    ],
)
def test_the_mergekit_recipe_scales_the_same_tensors(kind, filters, tmp_path):
    import yaml

    parent_of(kind, tmp_path, **FAMILIES[kind])
    config, names = json.loads((tmp_path / "config.json").read_text()), stored(tmp_path)
    recipe = yaml.safe_load(mergekit.recipe(tmp_path, planned("zero"), config, names))
    if filters is None:
        assert recipe is None, "mergekit cannot scale one plus a weight"
        return
    scales = [s["sources"][0].get("parameters", {}).get("scale", []) for s in recipe["slices"]]
    assert {entry["filter"] for scale in scales for entry in scale if "filter" in entry} == filters


def test_a_child_refused_while_it_is_written_leaves_nothing(tmp_path, monkeypatch):
    """Shards are copied while the small copy is tried; those of an earlier attempt are kept."""
    parent_of("qwen2", tmp_path / "parent")
    child, partial = tmp_path / "child", tmp_path / "child.partial"

    def refuse(*arguments):
        while not list(partial.glob("*.safetensors")):
            time.sleep(0.001)
        raise UserError("no")

    with monkeypatch.context() as patch:
        patch.setattr(probe, "prove", refuse)
        with pytest.raises(UserError, match="no"):
            writer.write(tmp_path / "parent", child, planned())
        assert not partial.exists() and not child.exists()
        patch.setattr(writer, "_carry", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(probe, "prove", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            writer.write(tmp_path / "parent", child, planned())
        patch.setattr(probe, "prove", refuse)
        with pytest.raises(UserError, match="no"):
            writer.write(tmp_path / "parent", child, planned())
    assert list(partial.glob("*.safetensors"))
    writer.write(tmp_path / "parent", child, planned())
    assert child.exists() and not partial.exists()
