"""Continued pre-training after duplication: who learns how fast, and how the loss recovers.

Report section 2 duplicates layers and continues training, without saying how. Three schemes:

    all         every parameter at the same learning rate                 (SOLAR, Yi-9B)
    new         only the new layers, everything else frozen               (LLaMA-Pro, 2401.02415)
    layer-wise  rate x decay^d, d = distance to the nearest new layer in the child's layer map

    curve = recovery.recovery(parent, {"copy": plan}, batches, held_out, steps=200)
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial

import pandas as pd
import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from katlab import UserError
from katlab.layer_saturation import child as children
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.similarity import decoder_layers

SCHEMES = ("all", "new", "layer-wise")


def rates(plan: LayerPlan, scheme: str, rate: float, decay: float = 0.7) -> list[float]:
    """Learning rate of each child layer, in order; 0 means frozen."""
    if scheme not in SCHEMES:
        raise UserError(f"Unknown scheme {scheme!r}; use one of {', '.join(SCHEMES)}.")
    new = [i for i, is_new in enumerate(plan.is_new) if is_new]
    distance = [min(abs(i - j) for j in new) for i in range(plan.child_layers)]
    if scheme == "all":
        return [rate] * plan.child_layers
    if scheme == "new":
        return [0.0 if d else rate for d in distance]
    return [rate * decay**d for d in distance]


def parameter_groups(
    model: PreTrainedModel, plan: LayerPlan, scheme: str, rate: float, decay: float = 0.7
) -> list[dict]:
    """Optimizer groups of the child, one a learning rate; parameters without one are frozen.

    Embeddings, head and final norm train at the slowest layer's rate.
    """
    layer_rates = rates(plan, scheme, rate, decay)
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


class _HeldOutLoss(TrainerCallback):
    """Held-out loss before the first step, every `every` steps and after the last."""

    def __init__(self, held_out: list[dict], every: int, tell: Callable[[int, float], None]):
        self.held_out, self.every, self.tell = held_out, every, tell

    def _measure(self, model: PreTrainedModel, step: int) -> None:
        model.eval()
        self.tell(step, children.mean_loss(model, self.held_out))
        model.train()

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._measure(model, 0)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._measure(model, state.global_step)


def run(
    model: PreTrainedModel,
    plan: LayerPlan,
    batches: list[dict],
    held_out: list[dict],
    *,
    steps: int,
    scheme: str = "all",
    rate: float = 1e-4,
    decay: float = 0.7,
    every: int = 10,
    seed: int = 0,
    tell: Callable[[int, float], None] | None = None,
) -> list[tuple[int, float]]:
    """Train the child in place for `steps` batches; returns (step, held-out loss in nats).

    `tell` hears each of these points as it is measured.
    AdamW (0.9, 0.95), weight decay 0.1, gradient norm 1, constant rate after a tenth of warm-up.
    """
    curve: list[tuple[int, float]] = []

    def point(step: int, loss: float) -> None:
        curve.append((step, loss))
        if tell:
            tell(step, loss)

    optimizer = torch.optim.AdamW(
        parameter_groups(model, plan, scheme, rate, decay),
        betas=(0.9, 0.95),
        weight_decay=0.1,
        fused=True,
    )
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, (s + 1) / warmup))
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=1,
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                remove_unused_columns=False,
                use_cpu=model.device.type == "cpu",
                seed=seed,
                disable_tqdm=True,
            ),
            train_dataset=batches,
            data_collator=_one_batch,
            optimizers=(optimizer, schedule),
            callbacks=[_HeldOutLoss(held_out, every, point)],
        )
        trainer.remove_callback(PrinterCallback)  # the caller's `tell` shows the progress
        trainer.train()
    model.eval()
    return curve


def _one_batch(items: list[dict]) -> dict[str, torch.Tensor]:
    """A batch made before (see `calibration`) with labels: its own, or every real token."""
    batch = items[0]
    ids, mask = batch["input_ids"], batch["attention_mask"]
    labels = batch.get("labels", ids.masked_fill(mask == 0, -100))
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def recovery(
    parent: PreTrainedModel,
    plans: Mapping[str, LayerPlan],
    batches: list[dict],
    held_out: list[dict],
    *,
    steps: int,
    tell: Callable[[str, int, float], None] | None = None,
    **settings,
) -> pd.DataFrame:
    """Held-out loss (nats) of each plan's child while it trains: columns start, step, loss.

    Step -1 is the parent before duplication, step 0 the child before training. `tell` hears each
    row of a child as it is measured.
    """
    before = children.mean_loss(parent, held_out)
    rows = []
    for name, plan in plans.items():
        child = children.apply_in_memory(parent, plan)
        heard = partial(tell, name) if tell else None
        curve = run(child, plan, batches, held_out, steps=steps, tell=heard, **settings)
        rows += [(name, -1, before), *((name, *point) for point in curve)]
    return pd.DataFrame(rows, columns=["start", "step", "loss"])
