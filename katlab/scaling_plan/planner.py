"""From nano to 40B: parameters, memory, FLOPs and hours of a dense decoder, by arithmetic alone.

Report sections 2 and 8: 64 layers of Qwen2.5-32B become 80 (Table 1), trained at an MFU of up to
50 %. Every rule is in ASSUMPTIONS, and the tests hold the rules against published runs.

    print(planner.table("target-40b"))
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

import pandas as pd

from katlab import UserError, lab
from katlab.sizes import PEAK, flops_per_token, heads, kv_bytes_per_token, parameters

GIB = 2**30
PROFILES = ("nano", "smol-135m", "proxy-1.5b", "target-40b")

ASSUMPTIONS = (
    "FLOPs: 2 per weight and token forward, attention over the full sequence (PaLM, appendix B);"
    " training costs 3 times that, with LoRA 2 times (no gradients of frozen weights).",
    "States are sharded evenly over the GPUs; QLoRA holds the whole model on each.",
    "Activations: one checkpointed input per layer, plus one layer's working set of 9 hidden + 4"
    " intermediate values per token, in bfloat16; plus two gathered layers when sharded.",
    "The output head is fused with the loss, so logits are not held (elsewhere: two fp32 copies).",
    "Nothing here predicts the MFU: it is given, and hours follow. 2 GiB per GPU are left for CUDA"
    " and NCCL.",
    "A small model's step cannot be shorter than the CPU takes to launch its kernels: per layer and"
    " pass 2.0 ms in full, with LoRA 2.8, QLoRA 4.6 (measured: 30 layers of 0.5B, one H100 host).",
)
RESERVED = 2.0  # GiB


@dataclass(frozen=True)
class Scheme:
    """How training keeps its states; `frozen` bytes are of weights that get no gradient."""

    name: str
    bytes_per_parameter: float
    sharded: bool = True
    backward: float = 3.0  # training FLOPs over forward FLOPs
    embedding_bytes: float = 0.0  # of embedding, head and norm where they are kept apart
    launch: float = 2.0e-3  # seconds of CPU per layer and pass: eager PyTorch, transformers, PEFT


SCHEMES = (
    Scheme("full, fp32 Adam (FSDP2)", 16),  # parameters, gradients, two moments: 4 x 4
    Scheme("full, ZeRO-3 bf16 + fp32 master", 18),  # DeepSpeed's factor
    Scheme("full, 8-bit Adam", 10),
    Scheme("full, all bf16", 8),
    Scheme("LoRA on bf16", 2, backward=2.0, launch=2.8e-3),
    # nf4: 4 bits and 0.127 bits of double-quantised constants (arXiv 2305.14314)
    Scheme("QLoRA nf4", 4.127 / 8, sharded=False, backward=2.0, embedding_bytes=2.0, launch=4.6e-3),
)


@dataclass(frozen=True)
class Gpu:
    name: str
    memory: float  # GiB
    peak: float  # dense bfloat16 FLOP/s


GPUS = {
    "A100-80": Gpu("A100-80", 79.2, PEAK["A100"]),
    "H100-80": Gpu("H100-80", 79.6, PEAK["H100"]),
    "H200-141": Gpu("H200-141", 139.8, PEAK["H200"]),
}


def state_gib(config: Mapping, scheme: Scheme, gpus: int) -> float:
    """Parameters, gradients and optimizer states on one GPU, GiB."""
    count = parameters(config)
    apart = count["total"] - count["layers"] if scheme.embedding_bytes else 0
    size = (count["total"] - apart) * scheme.bytes_per_parameter + apart * scheme.embedding_bytes
    return size / GIB / (gpus if scheme.sharded else 1)


def activation_gib(
    config: Mapping, tokens: int, *, gathered: bool = True, full_logits: bool = False
) -> float:
    """Activations of `tokens` tokens on one GPU with checkpointed layers, GiB."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    size = 2 * tokens * hidden * config["num_hidden_layers"]
    size += 2 * tokens * (9 * hidden + 4 * inner)
    size += 2 * 2 * parameters(config)["layer"] * gathered
    size += 2 * 4 * tokens * config["vocab_size"] * full_logits
    return size / GIB


def training_gib(
    config: Mapping, scheme: Scheme, gpus: int, tokens: int, *, full_logits: bool = False
) -> float:
    """All that one GPU needs for a step of `tokens` tokens of its own, GiB."""
    gathered = scheme.sharded and gpus > 1
    activations = activation_gib(config, tokens, gathered=gathered, full_logits=full_logits)
    return state_gib(config, scheme, gpus) + activations + RESERVED


def adapters(config: Mapping, r: int, targets: Iterable[str]) -> int:
    """Weights of LoRA's adapters: r x (in + out) for each target matrix of each layer."""
    queries, kv_heads, head_dim = heads(config)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    read, kept = hidden + queries * head_dim, hidden + kv_heads * head_dim
    sides = dict(q_proj=read, k_proj=kept, v_proj=kept, o_proj=read)
    sides |= dict.fromkeys(("gate_proj", "up_proj", "down_proj"), hidden + inner)
    return config["num_hidden_layers"] * r * sum(sides[name] for name in targets)


def step_gib(
    config: Mapping,
    scheme: Scheme,
    tokens: int,
    adapter: int = 0,
    *,
    checkpointed: bool = True,
    modules: int = 0,
    reader: Mapping | None = None,
    chunk: int = 0,
) -> float:
    """What a step of `tokens` tokens at once allocates at most on one GPU, without CUDA's own, GiB.

    `training_gib` is a rule for large models; this is what small ones feel. States, 16 bytes per
    adapter weight, a layer's input each, kept from the forward pass, and what the backward pass of
    a layer takes beside it: 14 hidden + 8 intermediate values per token in bfloat16, counted from
    the tensors of Qwen2's layers. In full training the gradients outgrow the inputs as these go,
    and a tied embedding gets its gradient twice. Where weights are frozen in 4 bits, PEFT makes
    embedding and head float32, and the inputs with them. The fused head works on tiles of 4,096
    tokens x 32,768 words.

    Without checkpoints (adapters alone) a layer keeps 12 hidden + 4 intermediate + 2 kv values per
    token, counted from what autograd saves. Distillation adds MTP `modules`, layers trained in
    full, a `reader` in bfloat16, and logits of `chunk` tokens in float32: 3 tables of tokens x
    words, 6 with a reader's beside them.
    """
    hidden, inner, count = config["hidden_size"], config["intermediate_size"], parameters(config)
    work = 2 * tokens * (14 * hidden + 8 * inner)
    head = 2 * min(tokens, 4096) * min(config["vocab_size"], 32768) + 4 * tokens * hidden
    if chunk:
        head = 4 * min(tokens, chunk) * config["vocab_size"] * (6 if reader else 3)
    kept = hidden
    if not checkpointed:
        if not adapter:
            raise ValueError("what a layer keeps is counted with adapters alone")
        _, kv_heads, head_dim = heads(config)
        kept = 12 * hidden + 4 * inner + 2 * kv_heads * head_dim
    inputs = 2 * tokens * kept * (config["num_hidden_layers"] + modules)
    if not adapter:
        size = max(work, head, 4 * count["embedding"]) + max(0, inputs - 4 * count["layers"])
    else:
        size = max(work, head) + inputs + 16 * adapter
    if scheme.embedding_bytes:
        size += inputs + 2 * (count["total"] - count["layers"])
    size += 16 * modules * count["layer"]
    size += 2 * parameters(reader)["total"] if reader else 0
    return state_gib(config, scheme, 1) + size / GIB


def tokens_per_second(
    config: Mapping, scheme: Scheme, gpu: Gpu, sequence: int, mfu: float
) -> float:
    """Training tokens per second on one GPU at a given share of its peak."""
    return mfu * gpu.peak / (scheme.backward * flops_per_token(config, sequence))


def step_seconds(
    config: Mapping,
    scheme: Scheme,
    peak: float,
    tokens: int,
    length: int,
    mfu: float,
    *,
    passes: int = 1,
    checkpointed: bool = True,
    scored: bool = False,
    modules: int = 0,
    reader: Mapping | None = None,
) -> float:
    """A step of `tokens` tokens in rows of `length` on one GPU, in so many `passes`.

    Its FLOPs at `mfu` of `peak` FLOP/s, or what the CPU takes to launch them where that is longer:
    forward, backward, which counts twice, and forward again where layers are checkpointed. `scored`
    adds a forward pass without gradients (the log-probabilities before a step of RL), `modules` are
    MTP's, launched as layers, `reader` adds a pass of a parent in full that reads along.
    """
    layers = config["num_hidden_layers"] + modules
    flops = (scheme.backward + scored) * flops_per_token(config, length)
    launching = (3 + checkpointed + scored) * layers * scheme.launch
    if reader:
        flops += flops_per_token(reader, length)
        launching += reader["num_hidden_layers"] * SCHEMES[0].launch
    return max(flops * tokens / (mfu * peak), passes * launching)


def architecture(profile: str) -> tuple[dict, dict]:
    """(parent, child) configurations of a profile: its [model.architecture], else config.json.

    The child has the layers that [layer_saturation] adds; 0 means a quarter, the report's rule.
    """
    from katlab import weights

    config = lab.load_profile(profile)
    parent = dict(config.model.architecture)
    if not parent:
        path = Path(weights.locate(config.model.student)) / "config.json"
        if not path.is_file():
            raise UserError(
                f"Profile {profile} has no [model.architecture] and {config.model.student} no"
                " config.json; write that table."
            )
        parent = json.loads(path.read_text())
    layers = parent["num_hidden_layers"]
    add = len(config.layer_saturation.layers) or config.layer_saturation.add or layers // 4
    return parent, parent | {"num_hidden_layers": layers + add}


def instantiate(config: Mapping):
    """The model of a configuration on the meta device: every shape, no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    made = AutoConfig.for_model(**config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(made)


def row(name: str, config: Mapping, plan) -> dict[str, float]:
    """One model's figures under a profile's [scaling_plan]: gpu, gpus, sequence, tokens, mfu."""
    gpu, full = GPUS[plan.gpu], SCHEMES[0]
    rate = tokens_per_second(config, full, gpu, plan.sequence, plan.mfu)
    figures = {
        "model": name,
        "layers": config["num_hidden_layers"],
        "parameters": parameters(config)["total"],
        "parameters per layer": parameters(config)["layer"],
        "forward FLOPs per token": flops_per_token(config, plan.sequence),
        "KV bytes per token": kv_bytes_per_token(config),
        f"activations GiB, {plan.sequence} tokens": activation_gib(config, plan.sequence),
    }
    for scheme in SCHEMES:
        figures[f"{scheme.name}, GiB per GPU"] = training_gib(
            config, scheme, plan.gpus, plan.sequence
        )
    figures["tokens per second and GPU"] = rate
    figures["GPU hours"] = plan.tokens / rate / 3600
    return figures


def rows(profiles: Iterable[str] = PROFILES) -> pd.DataFrame:
    """Figures of each profile's upscaled student on its own [scaling_plan], one row per profile."""
    return pd.DataFrame(
        [row(p, architecture(p)[1], lab.load_profile(p).scaling_plan) for p in profiles]
    ).set_index("model")


def table(profile: str) -> str:
    """What `katlab plan` prints: a profile's parent and child side by side, and the assumptions."""
    plan = lab.load_profile(profile).scaling_plan
    parent, child = architecture(profile)
    sides = pd.DataFrame([row("parent", parent, plan), row("child", child, plan)])
    text = sides.set_index("model").T.map(lambda v: f"{v:,.2f}" if v < 1000 else f"{v:,.0f}")
    told = f"{profile}: {plan.gpus} x {plan.gpu}, sequences of {plan.sequence},"
    told += f" {plan.tokens:.3g} tokens, MFU {plan.mfu:.0%}"
    assumed = [fill(f"- {line}", 80, subsequent_indent="  ") for line in ASSUMPTIONS]
    return "\n".join([told, text.to_string(), "", *assumed])


def by_depth(config: Mapping, depths: Iterable[int], plan) -> pd.DataFrame:
    """Parameters, FLOPs and memory of the same width at each depth, and what fits on a GPU.

    `sequences` is how many sequences one GPU holds beside its states: the room that the MFU has to
    come from, since larger batches keep the GPU busier.
    """
    gpu, scheme, made = GPUS[plan.gpu], SCHEMES[0], []
    for depth in depths:
        deep = {**config, "num_hidden_layers": depth}
        states = state_gib(deep, scheme, plan.gpus)
        one = activation_gib(deep, plan.sequence, gathered=False)
        free = gpu.memory - RESERVED - states - 4 * parameters(deep)["layer"] / GIB
        made.append(
            {
                "layers": depth,
                "parameters": parameters(deep)["total"],
                "training_flops_per_token": 3 * flops_per_token(deep, plan.sequence),
                "states_gib": states,
                "activations_gib": activation_gib(deep, plan.sequence),
                "kv_kib_per_token": kv_bytes_per_token(deep) / 1024,
                "sequences": max(0, int(free // one)),
            }
        )
    return pd.DataFrame(made)
