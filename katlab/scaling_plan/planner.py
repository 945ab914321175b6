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
from katlab.sizes import PEAK, flops_per_token, kv_bytes_per_token, parameters

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
    " pass 2.0 ms in full, with LoRA 2.8, QLoRA 4.6 (measured: 30 layers of 0.5B, one H100 host;"
    " another host's steps took up to 2.1 times as long).",
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


def tokens_per_second(
    config: Mapping, scheme: Scheme, gpu: Gpu, sequence: int, mfu: float
) -> float:
    """Training tokens per second on one GPU at a given share of its peak."""
    return mfu * gpu.peak / (scheme.backward * flops_per_token(config, sequence))


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
