"""What one training step of a small model takes on one GPU: memory and seconds, counted by hand.

`planner` has the rules for large models; a small one feels what those leave out, a layer's working
set and the time in which the CPU launches its kernels. `katlab gpu-check` sets both beside a GPU.

    steps.step_gib(config, scheme, 8192);  steps.step_seconds(config, scheme, peak, 8192, 512, 0.25)
"""

from collections.abc import Iterable, Mapping

from katlab.scaling_plan.planner import GIB, SCHEMES, Scheme, state_gib
from katlab.sizes import flops_per_token, heads, parameters


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
    words, 6 with a reader's beside them. Beside adapters it trains rows of new tokens, for which
    PEFT copies the embedding in each head, the modules' too.
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
    if chunk and adapter:
        size += 2 * (1 + modules) * count["embedding"]
    size += 16 * modules * count["layer"]
    size += 2 * parameters(reader)["total"] if reader else 0
    return state_gib(config, scheme, 1) + size / GIB


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
