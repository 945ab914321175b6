"""Count parameters, cache and FLOPs of a dense decoder from its configuration (report section 2).

    python -m katlab.planner
"""

from collections.abc import Mapping


def parameters(config: Mapping) -> dict[str, int]:
    """Parameters of a Qwen2, Qwen3 or Llama decoder: layer, layers, embedding, head, norm, total."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    heads, kv_heads, head_dim = _heads(config)
    query, key = heads * head_dim, kv_heads * head_dim
    bias = config["model_type"] == "qwen2" or config.get("attention_bias", False)
    output_bias = config["model_type"] != "qwen2" and config.get("attention_bias", False)
    attention = hidden * (query + 2 * key) + query * hidden
    attention += (query + 2 * key) * bias + hidden * output_bias
    attention += 2 * head_dim * (config["model_type"] == "qwen3")  # norms of queries and keys
    layer = attention + 3 * hidden * config["intermediate_size"] + 2 * hidden
    layers = layer * config["num_hidden_layers"]
    head = 0 if config["tie_word_embeddings"] else vocab * hidden
    total = layers + vocab * hidden + head + hidden
    return {
        "layer": layer,
        "layers": layers,
        "embedding": vocab * hidden,
        "head": head,
        "norm": hidden,
        "total": total,
    }


def _heads(config: Mapping) -> tuple[int, int, int]:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return heads, config["num_key_value_heads"], head_dim


def kv_bytes_per_token(config: Mapping, bytes_per_value: int = 2) -> int:
    """Bytes of key-value cache a token adds: 2 x layers x key-value heads x head size x bytes."""
    _, kv_heads, head_dim = _heads(config)
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * bytes_per_value


def flops_per_token(config: Mapping, sequence: int) -> float:
    """Forward FLOPs a token: 2 per weight of every matrix and 4 x layers x query width x sequence.

    Non-causal attention, as in PaLM's appendix B (arXiv 2204.02311); training costs three times it.
    """
    heads, _, head_dim = _heads(config)
    count = parameters(config)
    head = config["vocab_size"] * config["hidden_size"]
    attention = 4 * config["num_hidden_layers"] * heads * head_dim * sequence
    return 2 * (count["layers"] + head) + attention
