"""What a layer is worth by the loss: each layer skipped, and each layer run twice.

Similarity ranks this only partly (Spearman 0.7 on SmolLM2), so it is measured: the report's
section 2 goes by similarity alone, and this is our addition.

    costs = damage.measure(model, batches)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from katlab import UserError
from katlab.layer_saturation.passes import decoder_layers
from katlab.layer_saturation.similarity import (
    RunningMeans,
    decode,
    state_of,
    tensor_of,
    token_masks,
)

KINDS = ("skip", "repeat")
CHUNK = 256  # positions that the head runs on at a time


def loss_masks(batch: dict) -> tuple[Tensor, Tensor]:
    """`token_masks` of the tokens whose loss counts: with labels, those that are not -100."""
    predicted = (batch.get("labels", batch["input_ids"]) != -100).cpu()
    predicted[:, 0] = False  # nothing predicts the first token
    counted, first = token_masks(batch)
    return counted & predicted, first & predicted


def token_losses(model: PreTrainedModel, batch: dict) -> Tensor:
    """(B, T) negative log-likelihood in nats of each token from those before it; position 0 is 0.

    On the CPU, wherever the model is. The head runs on CHUNK positions at a time, so (B, T, V)
    logits never exist.
    """
    hidden_BTH = decode(model, batch)[:, :-1]
    targets, rows = batch["input_ids"][:, 1:].flatten(), hidden_BTH.flatten(0, 1)
    head, losses = model.get_output_embeddings(), []
    for some, target in zip(rows.split(CHUNK), targets.split(CHUNK), strict=True):
        logits = head(some).float()
        losses.append(F.cross_entropy(logits, target.to(logits.device), reduction="none").cpu())
    return F.pad(torch.cat(losses).view(len(hidden_BTH), -1), (1, 0))


@contextmanager
def replaced(layers: nn.ModuleList, forwards: dict[int, Callable]) -> Iterator[None]:
    """Within the block, layer i runs forwards[i](hidden, **kwargs) instead of its own forward."""
    kept = {i: layers[i].__dict__.get("forward") for i in forwards}
    for i, forward in forwards.items():
        layers[i].forward = forward
    try:
        yield
    finally:
        for i, forward in kept.items():
            if forward is None:
                del layers[i].forward
            else:  # accelerate had dispatched this layer
                layers[i].forward = forward


@torch.inference_mode()
def measure(
    model: PreTrainedModel,
    batches: Iterable[dict],
    *,
    seed: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> pd.DataFrame:
    """Loss change in nats per token when one layer is skipped ("skip") or run twice ("repeat").

    One row per group and layer with 90 % intervals; the column `loss` is the unchanged model's.
    Layers below the changed one are not run again: their states are kept for one batch at a time,
    so a layer costs half a forward pass on average. Keep batches small. `tell` hears
    how many layers are done, counted over the batches.
    """
    layers = decoder_layers(model)
    means = RunningMeans(seed)
    for place, batch in enumerate(batches):
        masks = loss_masks(batch)
        states, wrap, base_BT = _states_and_loss(model, layers, batch)
        changes = []
        for i in range(len(layers)):
            with_change = (_changed_loss(model, layers, i, k, states, wrap, batch) for k in KINDS)
            changes.append([base_BT, *(loss_BT - base_BT for loss_BT in with_change)])
            tell(place * len(layers) + i + 1)
        values_LMBT = torch.stack([torch.stack(metrics) for metrics in changes])
        sums = [torch.einsum("lmbt,bt->blm", values_LMBT, mask.double()) for mask in masks]
        means.add(batch, torch.stack(sums).numpy(), masks)
    if not means.sums:
        raise UserError("No text to measure: give at least one batch.")
    return means.frame(("loss", *KINDS))


def _states_and_loss(
    model: PreTrainedModel, layers: nn.ModuleList, batch: dict
) -> tuple[list[Tensor], Callable, Tensor]:
    """The L+1 states of one batch, how a layer returns a state, and the (B, T) losses."""
    states, outputs = [], []
    with ExitStack() as stack:
        for layer in layers:
            pre = layer.register_forward_pre_hook(
                lambda _, args, kwargs: states.append(state_of(args, kwargs)), with_kwargs=True
            )
            stack.callback(pre.remove)
        last = layers[-1].register_forward_hook(lambda _, args, out: outputs.append(out))
        stack.callback(last.remove)
        base_BT = token_losses(model, batch).double()
    states.append(tensor_of(outputs[0]))
    wrap = (lambda h: (h,)) if isinstance(outputs[0], tuple) else (lambda h: h)
    return states, wrap, base_BT


def _changed_loss(
    model: PreTrainedModel,
    layers: nn.ModuleList,
    changed: int,
    kind: str,
    states: list[Tensor],
    wrap: Callable,
    batch: dict,
) -> Tensor:
    """(B, T) losses with layer `changed` skipped or repeated; the layers below pass through."""
    own = layers[changed].forward

    def skip(hidden: Tensor, *args, **kwargs):
        return wrap(states[changed])

    def repeat(hidden: Tensor, *args, **kwargs):
        return own(states[changed + 1], *args, **kwargs)

    forward = skip if kind == "skip" else repeat
    below = {i: lambda hidden, *args, **kwargs: wrap(hidden) for i in range(changed)}
    with replaced(layers, {**below, changed: forward}):
        return token_losses(model, batch).double()
