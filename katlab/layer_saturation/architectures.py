"""What of a decoder goes by layer, and which of its tensors scale what a layer adds.

A layer adds to the residual stream what its attention and its MLP say; their last matrices scale
it. Where a norm stands behind them it undoes every factor, so there the norm's own weight takes
the factor. What stands here is a claim: `probe` tries it on a small copy of each parent before a
child is written, and an architecture of other names or habits is refused there.

    child_tensors("model.layers.3.mlp.down_proj.weight", plan, "qwen2")
"""

import copy
import re
from collections.abc import Mapping

from katlab import UserError
from katlab.layer_saturation.plan import LayerPlan

# Of the decoder alone: the layers of a vision tower or of an MTP head have other words before them.
_LAYER = re.compile(r"((?:(?:language_model|model|gpt_neox)\.)*layers\.)(\d+)\.(.+)")
WRITERS = (  # the last matrices of attention and MLP; * is an expert's number
    "self_attn.o_proj",  # Llama and most decoders after it, with mlp.down_proj
    "mlp.down_proj",
    "mlp.experts.*.down_proj",  # Qwen-MoE, OLMoE, DeepSeek
    "mlp.shared_expert.down_proj",
    "mlp.shared_experts.down_proj",
    "mlp.experts.down_proj",  # all experts in one tensor: gpt-oss, and any mixture in memory
    "mlp.experts.down_proj_bias",
    "block_sparse_moe.experts.*.w2",  # Mixtral
    "self_attn.dense",  # Phi, with mlp.fc2
    "mlp.fc2",
    "mlp.c_proj",  # Starcoder2
    "attention.dense",  # GPT-NeoX, with mlp.dense_4h_to_h
    "mlp.dense_4h_to_h",
)
_AROUND = ("post_attention_layernorm", "post_feedforward_layernorm")
NORMS_BEHIND = {
    "gemma2": _AROUND,
    "gemma3_text": _AROUND,
    "olmo2": _AROUND,
    "olmo3": _AROUND,
    "exaone4": _AROUND,
    "glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}
ONE_ADDED = ("gemma2", "gemma3_text")  # their norms multiply by 1 + weight
LISTS = ("layer_types", "no_rope_layers", "mlp_layer_types")  # one entry per layer
INDICES = ("mlp_only_layers",)  # numbers of layers
COUNTS = ("max_window_layers", "first_k_dense_replace")  # so many of the first layers differ
STEPS = ("decoder_sparse_step",)  # every n-th layer has experts, those of mlp_only_layers apart


def layer_of(name: str) -> tuple[int, str] | None:
    """(layer, rest of the name) of a tensor in a decoder layer, an expert's number as *."""
    match = _LAYER.fullmatch(name)
    return (int(match[2]), re.sub(r"\.\d+\.", ".*.", match[3])) if match else None


def branches(kind: str) -> tuple[str, ...]:
    """Modules of a layer whose outputs are added to the residual stream."""
    return NORMS_BEHIND.get(kind, ("self_attn", "attention", "mlp"))


def shift(kind: str) -> float:
    """What is added to a writing weight before it multiplies."""
    return float(kind in ONE_ADDED)


def writer_of(tail: str, kind: str) -> str:
    """Which of the architecture's residual writers a tensor of a layer belongs to; "" if none."""
    known = NORMS_BEHIND.get(kind, WRITERS)
    module, _, leaf = tail.rpartition(".")
    if tail in known:
        return tail
    return module if module in known and leaf in ("weight", "bias") else ""


def child_tensors(name: str, plan: LayerPlan, kind: str) -> list[tuple[str, float]]:
    """(child's name, factor) of every tensor the child makes of the parent's tensor `name`.

    `kind` is the configuration's model_type. A weight w becomes (w + s) factor - s with
    s = shift(kind).
    """
    match = _LAYER.fullmatch(name)
    if not match:
        return [(name, 1.0)]
    layer, tail = int(match[2]), match[3]
    writes = writer_of(layer_of(name)[1], kind)
    factor = plan.scale if writes else (1.0,) * plan.child_layers
    return [(f"{match[1]}{i}.{tail}", factor[i]) for i, s in enumerate(plan.source) if s == layer]


def child_config(config: Mapping, plan: LayerPlan) -> dict:
    """The parent's config.json with the child's depth and all that goes by layer mapped along.

    Raises UserError for a plan of another depth or a list that is too short.
    """
    plan.require(config["num_hidden_layers"])
    child = copy.deepcopy(dict(config)) | {"num_hidden_layers": plan.child_layers}
    for key in filter(config.get, LISTS):
        child[key] = [of_layer(config, key, i) for i in plan.source]
    for key in STEPS:
        if isinstance(step := config.get(key), int) and step > 1:
            dense = {i for i in range(plan.parent_layers) if (i + 1) % step}
            dense |= set(config.get("mlp_only_layers") or ())
            config, child[key] = {**config, "mlp_only_layers": sorted(dense)}, 1
    for key in INDICES:
        if isinstance(config.get(key), list):
            child[key] = [i for i, s in enumerate(plan.source) if s in config[key]]
    for key in COUNTS:
        if isinstance(first := config.get(key), int):
            inside = [source < first for source in plan.source]
            child[key] = sum(inside) if first < plan.parent_layers else plan.child_layers
            # transformers goes by layer_types, so max_window_layers may be crossed.
            if key == "first_k_dense_replace" and inside != sorted(inside, reverse=True):
                raise UserError(
                    f"{key} in config.json sets {first} layers apart, and stacked copies would mix"
                    " them with others; plan with --order interleaved."
                )
    return child


def of_layer(config: Mapping, key: str, layer: int) -> object:
    """The entry of one layer in a list of the configuration; UserError when it has none."""
    if not isinstance(config[key], list) or len(config[key]) <= layer:
        raise UserError(f"{key} in config.json has no entry for layer {layer}; repair that file.")
    return config[key][layer]
