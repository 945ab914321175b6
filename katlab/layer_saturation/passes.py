"""A parent run as its child: its layers in the plan's order, no tensor copied.

with passes.upscaled(parent, plan) as child: logits = child(ids).logits
"""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from katlab import UserError
from katlab.layer_saturation.architectures import branches, child_config
from katlab.layer_saturation.plan import LayerPlan


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The model's stack of decoder layers; UserError when it has none under the name `layers`."""
    for name, module in model.named_modules():
        if name.split(".")[-1] == "layers" and isinstance(module, nn.ModuleList):
            return module
    raise UserError(
        f"{type(model).__name__} has no `layers` stack; use a decoder of the Qwen or Llama family."
    )


class _Pass(nn.Module):
    """A parent's layer as one layer of the child: what it adds is multiplied by a factor."""

    def __init__(self, layer: nn.Module, factor: float, kind: str):
        super().__init__()
        self.layer, self.factor, self.branches = layer, factor, branches(kind)

    def forward(self, *args, **kwargs):
        with ExitStack() as stack:
            for name, module in self.layer.named_modules() if self.factor != 1.0 else ():
                if name in self.branches:
                    stack.callback(module.register_forward_hook(self._scaled).remove)
            return self.layer(*args, **kwargs)

    def _scaled(self, module: nn.Module, given: tuple, out):
        if isinstance(out, tuple):  # attention says its weights too
            return (out[0] * self.factor, *out[1:])
        return out * self.factor


@contextmanager
def upscaled(model: PreTrainedModel, plan: LayerPlan) -> Iterator[PreTrainedModel]:
    """Within the block, `model` runs as the child of `plan`; no tensor is copied.

    For measuring: a layer and its copies are one module. Works wherever the parent works, packed
    by a quantisation or spread over devices too.
    """
    config, own = copy.deepcopy(model.config), model.config.to_dict()
    for key, value in child_config(own, plan).items():
        if own.get(key) != value:
            setattr(config, key, value)
    layers = decoder_layers(model)
    owner = next(m for m in model.modules() if getattr(m, "layers", None) is layers)
    kept, kind = owner.config, config.model_type
    passes = zip(plan.source, plan.scale, strict=True)
    owner.layers = nn.ModuleList(_Pass(layers[i], factor, kind) for i, factor in passes)
    owner.config = config
    try:
        yield model
    finally:
        owner.layers, owner.config = layers, kept


def scaled(tensor: Tensor, factor: float, shift: float) -> Tensor:
    """A tensor w as (w + shift) factor - shift, in its dtype; w itself where the factor is 1."""
    if factor == 1.0:
        return tensor
    if not shift:
        return tensor * factor
    wide = tensor if tensor.dtype == torch.float64 else tensor.float()
    return ((wide + shift) * factor - shift).to(tensor.dtype)
