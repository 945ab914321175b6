"""What a layer is worth by the loss: each layer skipped, and each layer run twice.

Similarity ranks this only partly (Spearman 0.7 on SmolLM2), so it is measured: the report's
section 2 goes by similarity alone, and this is our addition.

    costs = layer_damage.measure(model, batches)
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from katlab import UserError
from katlab.layer_saturation.similarity import (
    FIRST_TOKENS,
    RunningMeans,
    decoder_layers,
    groups_of,
    state_of,
    tensor_of,
    token_masks,
)


def loss_masks(batch: dict, sink_tokens: int) -> tuple[Tensor, Tensor]:
    """`token_masks` of the tokens whose loss counts: with labels, those that are not -100."""
    predicted = batch.get("labels", batch["input_ids"]) != -100
    predicted[:, 0] = False  # nothing predicts the first token
    counted, first = token_masks(batch, sink_tokens)
    return counted & predicted, first & predicted


def token_losses(model: PreTrainedModel, batch: dict, chunk: int = 256) -> Tensor:
    """(B, T) negative log-likelihood in nats of each token from those before it; position 0 is 0.

    The head runs on `chunk` positions at a time, so (B, T, V) logits never exist.
    """
    ids, mask = batch["input_ids"].to(model.device), batch.get("attention_mask")
    hidden_BTH = model.base_model(
        input_ids=ids,
        attention_mask=None if mask is None else mask.to(model.device),
        use_cache=False,
    ).last_hidden_state[:, :-1]
    targets = ids[:, 1:].flatten()
    head, rows = model.get_output_embeddings(), hidden_BTH.flatten(0, 1)
    losses = [
        F.cross_entropy(head(r).float(), t.to(r.device), reduction="none").cpu()
        for r, t in zip(rows.split(chunk), targets.split(chunk), strict=True)
    ]
    return F.pad(torch.cat(losses).view(len(ids), -1), (1, 0))


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
    kinds: tuple[str, ...] = ("skip", "repeat"),
    sink_tokens: int = 4,
    replicates: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Loss change in nats a token when one layer is skipped ("skip") or run twice ("repeat").

    One row per group and layer with 90 % intervals; the column `loss` is the unchanged model's.
    Layers below the changed one are not run again: their states are kept for one batch at a time,
    so a layer costs half a forward pass on average. Keep batches small.
    """
    layers = decoder_layers(model)
    means = RunningMeans(replicates, seed)
    for batch in batches:
        counted, first = loss_masks(batch, sink_tokens)
        states, wrap, base_BT = _states_and_loss(model, layers, batch)
        changes_LKBT = torch.stack(
            [
                _changed_loss(model, layers, i, kind, states, wrap, batch) - base_BT
                for i in range(len(layers))
                for kind in kinds
            ]
        ).unflatten(0, (len(layers), len(kinds)))
        base_LKBT = base_BT.expand(len(layers), 1, -1, -1)
        values_LMBT = torch.cat([base_LKBT, changes_LKBT], dim=1)
        weights, everyone = means.weights(len(base_BT)), np.arange(len(base_BT))
        grouped = [(group, members, counted) for group, members in groups_of(batch, len(base_BT))]
        for group, members, mask in [*grouped, (FIRST_TOKENS, everyone, first)]:
            mask_BT = mask[members].double()
            sums_BLM = torch.einsum("lmbt,bt->blm", values_LMBT[:, :, members], mask_BT)
            counts_B = mask_BT.sum(1).numpy()
            means.add(group, weights[:, members], sums_BLM.numpy(), counts_B)
    if not means.sums:
        raise UserError("No text to measure: give at least one batch.")
    return means.frame(("loss", *kinds))


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

    if kind not in ("skip", "repeat"):
        raise UserError(f"Unknown damage {kind!r}; use skip or repeat.")
    forward = skip if kind == "skip" else repeat
    below = {i: lambda hidden, *args, **kwargs: wrap(hidden) for i in range(changed)}
    with replaced(layers, {**below, changed: forward}):
        return token_losses(model, batch).double()
