"""Parents of any architecture for the tests of upscaling: narrow, random, in a folder."""

import json

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from katlab.layer_saturation.plan import LayerPlan, plan

LAYERS = 6
SIZES = dict(
    vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=LAYERS,
    num_attention_heads=4, num_key_value_heads=2, head_dim=4, max_position_embeddings=64,
    pad_token_id=0, bos_token_id=1, eos_token_id=2,
)  # fmt: skip
IDS = torch.tensor([[1, 5, 9, 33, 12, 7, 21, 40, 3, 8]])


def parent_of(kind: str, folder, dtype=torch.float32, **more) -> AutoModelForCausalLM:
    """A parent with random weights, norms and biases, saved in `folder`."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | more)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn_like(weight)
            weight.copy_(noise * 0.3 if weight.dim() > 1 else weight + noise * 0.1)
    model.save_pretrained(folder)
    return model


def planned(start: str = "half-step", order: str = "interleaved") -> LayerPlan:
    return plan(LAYERS, choice="list", chosen=[1, 4, 5], start=start, order=order)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(IDS, use_cache=False).logits


def reconfigure(folder, drop=(), **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in drop} | values
    (folder / "config.json").write_text(json.dumps(config))
