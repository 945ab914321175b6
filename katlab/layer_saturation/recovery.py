"""Continued pre-training after duplication: who learns how fast, and how the loss recovers.

Report section 2 duplicates layers and continues training, without saying how. Three schemes:

    all         every parameter at the same learning rate                 (SOLAR, Yi-9B)
    new         only the new layers, everything else frozen               (LLaMA-Pro, 2401.02415)
    layer-wise  rate x 0.7^d, d = distance to the nearest new layer in the child's layer map

Weights are float32 masters: in bfloat16 a step of 2e-5 rounds to nothing for most of them. Where
the parent is bfloat16, the forward pass computes in it (autocast), as a full training would.

    curves = recovery.recovery(parent, {"copy": plan}, batches, held_out, steps=200, ...)
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count, islice

import pandas as pd
import torch
from transformers import PreTrainedModel

from katlab import UserError, speed
from katlab.layer_saturation.child import apply_in_memory, mean_loss
from katlab.layer_saturation.passes import decoder_layers
from katlab.layer_saturation.plan import LayerPlan

SCHEMES = ("all", "new", "layer-wise")
DECAY = 0.7


def rates(plan: LayerPlan, scheme: str, rate: float) -> list[float]:
    """Learning rate of each child layer, in order; 0 means frozen."""
    if scheme not in SCHEMES:
        raise UserError(f"Unknown scheme {scheme!r}; use one of {', '.join(SCHEMES)}.")
    new = [i for i, is_new in enumerate(plan.is_new) if is_new]
    distance = [min(abs(i - j) for j in new) for i in range(plan.child_layers)]
    if scheme == "all":
        return [rate] * plan.child_layers
    if scheme == "new":
        return [0.0 if d else rate for d in distance]
    return [rate * DECAY**d for d in distance]


def parameter_groups(
    model: PreTrainedModel, plan: LayerPlan, scheme: str, rate: float
) -> list[dict]:
    """Optimizer groups of the child, one per learning rate; parameters without one are frozen.

    Embeddings, head and final norm train at the slowest layer's rate.
    """
    layer_rates = rates(plan, scheme, rate)
    of_parameter = {
        id(p): r
        for layer, r in zip(decoder_layers(model), layer_rates, strict=True)
        for p in layer.parameters()
    }
    groups: dict[float, list] = {}
    for parameter in model.parameters():
        own = of_parameter.get(id(parameter), min(layer_rates))
        parameter.requires_grad_(own > 0)
        if own > 0:
            groups.setdefault(own, []).append(parameter)
    return [{"params": params, "lr": own} for own, params in groups.items()]


def run(
    model: PreTrainedModel,
    plan: LayerPlan,
    batches: list[dict],
    held_out: list[dict],
    *,
    steps: int,
    scheme: str,
    rate: float,
    every: int,
    seed: int = 0,
    compute: torch.dtype = torch.float32,
    tell: Callable[[int, float], None] = lambda step, loss: None,
    timed: Callable[[PreTrainedModel, list[int], float], None] = lambda *_: None,
) -> list[tuple[int, float]]:
    """Train the child in place for `steps` batches; returns (step, held-out loss in nats).

    The loss is measured before the first step, every `every` steps and after the last; `tell`
    hears each of these points as it is measured, `timed` the tokens per row and the seconds of the
    training alone, when it is over. AdamW (0.9, 0.95), weight decay 0.1, gradient
    norm 1, constant rate after a tenth of warm-up; one process, on the model's device. Raises
    UserError for weights that are not float32.
    """
    if {parameter.dtype for parameter in model.parameters()} != {torch.float32}:
        raise UserError("Small steps vanish in these weights; train a float32 copy of the model.")
    groups = parameter_groups(model, plan, scheme, rate)
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / warmup))
    half = compute == torch.bfloat16
    autocast = partial(torch.autocast, model.device.type, compute, enabled=half)
    curve: list[tuple[int, float]] = []

    def measure(step: int) -> None:
        with autocast():
            curve.append((step, mean_loss(model.eval(), held_out)))
        tell(*curve[-1])

    measure(0)
    lengths: list[int] = []
    spent, begun = 0.0, speed.now()
    for step, batch in enumerate(islice(_endless(batches, seed), steps), start=1):
        with autocast():
            loss = model.train()(**_inputs(batch, model.device), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        lengths += batch["attention_mask"].sum(1).tolist()
        if step % every == 0 or step == steps:
            spent += speed.now() - begun
            measure(step)
            begun = speed.now()
    timed(model, lengths, spent)
    model.eval()
    return curve


def _endless(batches: list[dict], seed: int) -> Iterator[dict]:
    """Batches without end, each pass over them shuffled anew."""
    for epoch in count():
        order = torch.Generator().manual_seed(seed + epoch)
        yield from (batches[i] for i in torch.randperm(len(batches), generator=order).tolist())


def _inputs(batch: dict, device: torch.device) -> dict[str, torch.Tensor]:
    """A batch (see `calibration`) on its way into the model; labels: its own, or every token."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    labels = batch.get("labels", ids.masked_fill(mask == 0, -100))
    inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {key: value.to(device) for key, value in inputs.items()}


def recovery(
    parent: PreTrainedModel,
    plans: Mapping[str, LayerPlan],
    batches: list[dict],
    held_out: list[dict],
    *,
    tell: Callable[[str, int, float], None] = lambda start, step, loss: None,
    **settings,
) -> pd.DataFrame:
    """Held-out loss (nats) of each plan's child while it trains: columns start, step, loss.

    Step -1 is the parent before duplication, step 0 the child before training. `tell` hears each
    row of a child as it is measured.
    """
    before, rows = mean_loss(parent, held_out), []
    for name, plan in plans.items():
        how = {"compute": parent.dtype, "tell": partial(tell, name), **settings}
        curve = run(apply_in_memory(parent, plan), plan, batches, held_out, **how)
        rows += [(name, -1, before), *((name, *point) for point in curve)]
    return pd.DataFrame(rows, columns=["start", "step", "loss"])
