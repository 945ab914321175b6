"""The small decoder of all tests: tiny("llama", num_hidden_layers=3), random weights of seed 0."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

SHAPE = dict(
    vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
)  # fmt: skip


def tiny(family: str = "qwen2", **config) -> PreTrainedModel:
    """A Qwen2, Qwen3 or Llama of `SHAPE` and what `config` says besides, float32, in eval mode."""
    torch.manual_seed(0)
    made = AutoConfig.for_model(family, **{**SHAPE, **config})
    return AutoModelForCausalLM.from_config(made, dtype=torch.float32).eval()
