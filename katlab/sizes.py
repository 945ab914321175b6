"""Parameters, cache bytes and FLOPs of a dense decoder, from its configuration alone.

sizes.parameters(config)["total"]
"""

import re
from collections.abc import Mapping

from katlab import UserError

KINDS = ("qwen2", "qwen3", "llama")  # what is counted here, by model_type
PEAK = {"A100": 312e12, "H100": 989e12, "H200": 989e12}  # dense bfloat16 FLOP/s; of SXM boards


def peak(device: str) -> float | None:
    """FLOP/s of a GPU by the name it gives itself; None for one that is not in `PEAK`."""
    kind = re.search(r"\b(A100|H100|H200)\b", device)
    slower = "H" in kind[1] and re.search("PCIe|NVL", device) if kind else None
    return None if kind is None or slower else PEAK[kind[1]]


def heads(config: Mapping) -> tuple[int, int, int]:
    """Query heads, key-value heads and the size of a head."""
    queries = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // queries
    return queries, config["num_key_value_heads"], head_dim


def matrices(config: Mapping) -> int:
    """Weights of one layer's seven matrices."""
    queries, kv_heads, head_dim = heads(config)
    attention = config["hidden_size"] * 2 * (queries + kv_heads) * head_dim
    return attention + 3 * config["hidden_size"] * config["intermediate_size"]


def parameters(config: Mapping) -> dict[str, int]:
    """Parameters of a Qwen2, Qwen3 or Llama decoder: layer, layers, embedding, head, total."""
    hidden, kind = config["hidden_size"], config["model_type"]
    if kind not in KINDS:
        raise UserError(f"Cannot count a {kind!r} model; use a qwen2, qwen3 or llama config.")
    queries, kv_heads, head_dim = heads(config)
    attention_bias = kind == "qwen2" or config.get("attention_bias", False)
    biases = (queries + 2 * kv_heads) * head_dim * attention_bias
    biases += hidden * (attention_bias and kind != "qwen2")  # Qwen2's o_proj has none
    norms = 2 * hidden + 2 * head_dim * (kind == "qwen3")
    layer = matrices(config) + biases + norms
    embedding = config["vocab_size"] * hidden
    head = 0 if config["tie_word_embeddings"] else embedding
    layers = layer * config["num_hidden_layers"]
    total = layers + embedding + head + hidden
    return {
        "layer": layer,
        "layers": layers,
        "embedding": embedding,
        "head": head,
        "total": total,
    }


def kv_bytes_per_token(config: Mapping) -> int:
    """Bytes of 16-bit key-value cache per token: 2 x layers x key-value heads x head size x 2."""
    _, kv_heads, head_dim = heads(config)
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * 2


def flops_per_token(config: Mapping, sequence: int) -> int:
    """Forward FLOPs per token: 2 per matrix weight, and 4 x layers x query width x sequence."""
    queries, _, head_dim = heads(config)
    weights = config["num_hidden_layers"] * matrices(config)
    weights += config["vocab_size"] * config["hidden_size"]
    return 2 * weights + 4 * config["num_hidden_layers"] * queries * head_dim * sequence
