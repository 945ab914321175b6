"""Depth upscaling of a model in memory: build the child, predict its loss, verify it.

Report section 2: the saturated quarter of the layers is duplicated and training continues. Plans
are made in `layer_saturation.plan`, checkpoints too large for memory are written by
`layer_saturation.writer`; both give the same child tensor by tensor.

    chosen = plan.plan(30, preset="kat", table=similarity.measure(model, batches).overall)
    deeper = child.apply_in_memory(model, chosen)
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from katlab import UserError, models
from katlab.layer_saturation import damage as layer_damage
from katlab.layer_saturation.plan import LayerPlan, child_config, child_tensors


def apply_in_memory(
    model: PreTrainedModel, plan: LayerPlan, *, share: bool = False
) -> PreTrainedModel:
    """The child model, in evaluation mode and in the parent's dtype.

    `share=True` lets unscaled tensors be the parent's own: no memory, but no training. Raises
    UserError for a quantised parent, whose packed weights cannot be scaled.
    """
    if getattr(model, "is_quantized", False):
        raise UserError('A quantised model cannot be upscaled; load it with quantize = "none".')
    if len({str(parameter.device) for parameter in model.parameters()}) > 1:
        raise UserError("A model spread over devices cannot be upscaled in memory; load it on one.")
    config = model.config.__class__.from_dict(child_config(model.config.to_dict(), plan))
    tensors = {}
    for name, tensor in model.state_dict().items():
        for child_name, factor in child_tensors(name, plan):
            own = tensor if share and factor == 1.0 else tensor.clone()
            tensors[child_name] = own.mul_(factor) if factor != 1.0 else own
    child = models.assemble(config, tensors, dict(model.named_buffers()), model.dtype)
    child.generation_config = copy.deepcopy(model.generation_config)
    return child


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[dict], sink_tokens: int = 4) -> float:
    """Mean loss in nats a token over `batches`, first tokens apart as in `damage.measure`."""
    total, tokens = 0.0, 0
    for batch in batches:
        counted, _ = layer_damage.loss_masks(batch, sink_tokens)
        total += float(layer_damage.token_losses(model, batch)[counted].double().sum())
        tokens += int(counted.sum())
    return total / tokens


def predict(model: PreTrainedModel, plan: LayerPlan, batches: list[dict]) -> dict[str, float]:
    """Parent's and child's loss and the change, measured on the child before a byte is written.

    The child shares the parent's tensors; only scaled copies of o_proj and down_proj are added.
    """
    parent = mean_loss(model, batches)
    child = mean_loss(apply_in_memory(model, plan, share=True), batches)
    return {"parent_loss": parent, "child_loss": child, "loss_change": child - parent}


@torch.inference_mode()
def compare(
    parent: PreTrainedModel,
    children: Iterable[PreTrainedModel],
    batches: list[dict],
    chunk: int = 256,
) -> list[dict[str, float]]:
    """What each child says otherwise than its parent, a row a child; the parent runs once.

    Over the tokens whose loss counts: loss_change in nats a token, kl of the logits, KL(parent,
    child) in nats, and top1_agreement, the share on which both have the same first choice.
    """
    told = [_last_states_and_targets(parent, batch) for batch in batches]
    own_head, rows = parent.get_output_embeddings(), []
    for child in children:
        head, sums = child.get_output_embeddings(), torch.zeros(3, dtype=torch.float64)
        for batch, (own_NH, targets_N) in zip(batches, told, strict=True):
            other_NH, _ = _last_states_and_targets(child, batch)
            pieces = (x.split(chunk) for x in (own_NH, other_NH, targets_N[:, None]))
            for own, other, target in zip(*pieces, strict=True):
                log_p = own_head(own).float().log_softmax(-1)
                log_q = head(other).float().log_softmax(-1)
                change = log_p.gather(1, target) - log_q.gather(1, target)
                divergence = log_p.exp() * (log_p - log_q)
                agreed = log_p.argmax(-1) == log_q.argmax(-1)
                sums += torch.stack([x.sum().double().cpu() for x in (change, divergence, agreed)])
        means = (sums / sum(len(targets) for _, targets in told)).tolist()
        rows.append(dict(zip(("loss_change", "kl", "top1_agreement"), means, strict=True)))
    return rows


def _last_states_and_targets(model: PreTrainedModel, batch: dict) -> tuple[Tensor, Tensor]:
    """The (N, H) final states that predict the N tokens whose loss counts, and those tokens."""
    inputs = {k: batch[k].to(model.device) for k in ("input_ids", "attention_mask")}
    counted = layer_damage.loss_masks(batch, sink_tokens=4)[0][:, 1:].to(model.device)
    hidden_BTH = model.base_model(**inputs, use_cache=False).last_hidden_state
    return hidden_BTH[:, :-1][counted], inputs["input_ids"][:, 1:][counted]


@torch.inference_mode()
def verify(
    parent: PreTrainedModel, child: PreTrainedModel, plan: LayerPlan, batches: list[dict]
) -> dict[str, object]:
    """Check a reloaded child against its parent and plan; UserError at the first check that fails.

    Every tensor must be the parent's times its scale, dtype and weight tying must be kept, the
    held-out loss must move as predicted, and with start "zero" the logits must be equal bit by bit.
    """
    if child.dtype != parent.dtype:
        raise UserError("The child's dtype is not its parent's; write the child again.")
    tied = [
        m.get_output_embeddings().weight is m.get_input_embeddings().weight for m in (parent, child)
    ]
    if tied[0] != tied[1]:
        raise UserError("The child's embeddings are not tied as its parent's; write it again.")
    name = _first_wrong_tensor(parent, child, plan)
    if name:
        raise UserError(f"{name} is not what the plan says; write the child again.")
    predicted = predict(parent, plan, batches)
    loss = mean_loss(child, batches)
    checks = {
        "layers": f"{plan.parent_layers} -> {plan.child_layers}",
        "dtype": str(child.dtype).removeprefix("torch."),
        "tied_embeddings": tied[1],
        "parent_loss": predicted["parent_loss"],
        "child_loss": loss,
        "predicted_change": predicted["loss_change"],
        "measured_change": loss - predicted["parent_loss"],
    }
    if abs(checks["measured_change"] - checks["predicted_change"]) > 1e-4:
        raise UserError(
            f"The loss moved by {checks['measured_change']:+.4f} nats and not by the predicted"
            f" {checks['predicted_change']:+.4f}; write the child again."
        )
    if plan.start == "zero":
        ids = batches[0]["input_ids"]
        if not torch.equal(parent(ids).logits, child(ids).logits):
            raise UserError("A child started at zero must equal its parent; write it again.")
        checks["equals_parent"] = True
    return checks


def _first_wrong_tensor(
    parent: PreTrainedModel, child: PreTrainedModel, plan: LayerPlan
) -> str | None:
    tensors = child.state_dict()
    for name, tensor in parent.state_dict().items():
        for child_name, factor in child_tensors(name, plan):
            if not torch.equal(tensors[child_name], tensor * factor):
                return child_name
    return None
