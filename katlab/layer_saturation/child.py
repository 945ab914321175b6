"""Depth upscaling of a model in memory: run the child, predict its loss, train it, compare it.

Report section 2: the saturated quarter of the layers is duplicated and training continues. Plans
are made in `layer_saturation.plan`; the checkpoint that later stages continue from is written by
`layer_saturation.writer`, from the parent's files.

    chosen = plan.plan(30, table=similarity.measure(model, batches).overall)
    change = child.predict(model, chosen, batches)["loss_change"]
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from katlab import UserError, weights
from katlab.layer_saturation import damage
from katlab.layer_saturation.architectures import child_config, child_tensors, shift
from katlab.layer_saturation.passes import scaled, upscaled
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.similarity import decode


def require_trainable(model: PreTrainedModel) -> None:
    """UserError for a parent of which no trainable child can be made in memory."""
    if getattr(model, "is_quantized", False):
        raise UserError(
            "A quantised model's children cannot be trained; load it with quantize = 'none'."
        )
    if len({str(parameter.device) for parameter in model.parameters()}) > 1:
        raise UserError(
            "Children of a model that is spread over devices are not trained here; set"
            " layer_saturation.recovery_steps = 0, or model.device_map = '' for one device."
        )


def apply_in_memory(model: PreTrainedModel, plan: LayerPlan) -> PreTrainedModel:
    """The child as a model of its own, to be trained: float32, on the parent's device.

    Raises UserError as `require_trainable`.
    """
    require_trainable(model)
    config = model.config.__class__.from_dict(child_config(model.config.to_dict(), plan))
    kind = config.model_type
    tensors = {
        child_name: scaled(tensor.to(torch.float32, copy=True), factor, shift(kind))
        for name, tensor in model.state_dict().items()
        for child_name, factor in child_tensors(name, plan, kind)
    }
    child = weights.assemble(config, tensors, dict(model.named_buffers()), torch.float32)
    child.generation_config = copy.deepcopy(model.generation_config)
    return child


@torch.inference_mode()
def mean_loss(model: PreTrainedModel, batches: Iterable[dict]) -> float:
    """Mean loss in nats per token over `batches`, first tokens apart as in `damage.measure`."""
    total, tokens = 0.0, 0
    for batch in batches:
        counted, _ = damage.loss_masks(batch)
        total += float(damage.token_losses(model, batch)[counted].double().sum())
        tokens += int(counted.sum())
    return total / tokens


def predict(model: PreTrainedModel, plan: LayerPlan, batches: list[dict]) -> dict[str, float]:
    """Parent's and child's loss and the change, measured before a byte is written."""
    parent = mean_loss(model, batches)
    with upscaled(model, plan) as child:
        loss = mean_loss(child, batches)
    return {"parent_loss": parent, "child_loss": loss, "loss_change": loss - parent}


class Reference:
    """What a parent says of `batches`; with it in hand the parent itself may leave memory.

    Kept are its head and, per batch, the (N, H) states before it that predict the N tokens whose
    loss counts.
    """

    @torch.inference_mode()
    def __init__(self, parent: PreTrainedModel, batches: list[dict]):
        self.head, self.batches = parent.get_output_embeddings(), batches
        self.told = [_last_states_and_targets(parent, batch) for batch in batches]

    @torch.inference_mode()
    def against(self, child: PreTrainedModel) -> dict[str, float]:
        """What the child says otherwise, over the tokens whose loss counts.

        loss_change in nats per token, kl of the logits, KL(parent, child) in nats, and
        top1_agreement, the share on which both have the same first choice.
        """
        head, sums = child.get_output_embeddings(), torch.zeros(3, dtype=torch.float64)
        for batch, (own_NH, targets_N) in zip(self.batches, self.told, strict=True):
            other_NH, _ = _last_states_and_targets(child, batch)
            pieces = (x.split(damage.CHUNK) for x in (own_NH, other_NH, targets_N[:, None]))
            for own, other, target in zip(*pieces, strict=True):
                log_p = self.head(own).float().log_softmax(-1)
                log_q = head(other).float().log_softmax(-1).to(log_p.device)
                change = (log_p - log_q).gather(1, target.to(log_p.device))
                divergence = log_p.exp() * (log_p - log_q)
                agreed = log_p.argmax(-1) == log_q.argmax(-1)
                sums += torch.stack([x.sum().double().cpu() for x in (change, divergence, agreed)])
        means = (sums / sum(len(targets) for _, targets in self.told)).tolist()
        return dict(zip(("loss_change", "kl", "top1_agreement"), means, strict=True))


def _last_states_and_targets(model: PreTrainedModel, batch: dict) -> tuple[Tensor, Tensor]:
    hidden_BTH, counted = decode(model, batch), damage.loss_masks(batch)[0][:, 1:]
    return hidden_BTH[:, :-1][counted.to(hidden_BTH.device)], batch["input_ids"][:, 1:][counted]
