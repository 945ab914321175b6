"""The distillation trainer: TRL's SFTTrainer with cross-entropy, ULD, chunk and MTP terms.

Report sections 3.1 and 3.3; what each term is stands in `uld` and `mtp`, what an arm
trains in `mtp_distillation.stage`.
"""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from katlab.mtp_distillation import mtp, uld


@dataclass(frozen=True)
class Arm:
    """What one training adds to cross-entropy; its folder under checkpoints/ has its name."""

    name: str
    title: str
    uld: bool
    mtp: bool


class DistillationTrainer(SFTTrainer):
    """TRL's SFTTrainer with another loss; the dataset and the collator bring the teachers' word."""

    def __init__(self, *args, arm: Arm, settings: SimpleNamespace, **kwargs):
        super().__init__(*args, **kwargs)
        self.arm, self.settings = arm, settings
        self._through = _ForwardRedirection()  # the loss runs inside DDP's or FSDP's forward

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum of the losses of this micro-batch over the reply tokens of the whole batch."""
        plain = self.accelerator.unwrap_model(model)
        sums = self._through(model, plain, self._sums, plain, inputs)
        if num_items_in_batch is None:
            num_items_in_batch = sums["tokens"]
        settings, depth = self.settings, settings_depth(self.settings, self.arm)
        scale = mtp.weight(
            self.state.global_step / self.state.max_steps,
            settings.mtp_weight_start,
            settings.mtp_weight_end,
        )
        total = 0.0
        for k in range(depth + 1):
            part = sums[f"ce_{k}"] + settings.uld_weight * sums[f"uld_{k}"]
            total = total + (scale / depth * part if k else part)
        total = total + settings.chunk_weight * sums["chunk"]
        self._note(sums, depth)
        loss = total / num_items_in_batch
        # num_items_in_batch counts the tokens of every rank, and DDP averages the gradients
        return loss * self.accelerator.num_processes

    def _sums(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every term summed over the reply tokens of this micro-batch, by depth."""
        labels = batch["labels"]  # (B, T)
        signal = batch["signal"] if self.arm.uld else torch.full_like(batch["signal"], -1)
        head = mtp.causal_of(model).get_output_embeddings()
        sums = {}
        for k, states in enumerate(mtp.states(model, batch["input_ids"], batch["attention_mask"])):
            row, at = mtp.targets(labels, k)  # (N,), (N,)
            found = uld.token_losses(
                states[row, at - 1 - k],
                head,
                labels[row, at],
                signal[row, at],
                batch["top"],
                batch["tail"],
                temperature=self.settings.temperature,
                chunk=self.settings.head_chunk,
            )
            sums[f"ce_{k}"], sums[f"uld_{k}"] = -found.logp.sum(), found.uld.sum()
            sums[f"right_{k}"] = (found.best == labels[row, at]).sum()
            if k == 0:
                sums["tokens"], sums["paired"] = (labels != -100).sum(), (signal >= 0).sum()
                sums["gap"] = found.gap.abs().sum()
                chunks = uld.chunk_losses(found.logp, batch["chunk"][row, at], batch["chunk_logp"])
                sums["chunk"] = chunks.sum() if self.arm.uld else chunks.sum() * 0.0
        return sums

    def _note(self, sums: dict[str, Tensor], depth: int) -> None:
        """Means over all ranks into the metrics that SFTTrainer logs."""
        values = torch.stack([value.detach().float() for value in sums.values()])
        values = self.accelerator.reduce(values, "sum").tolist()
        total = dict(zip(sums, values, strict=True))
        tokens, pairs = max(total["tokens"], 1.0), max(total["paired"], 1.0)
        figures = {"ce": total["ce_0"] / tokens, "token_accuracy": total["right_0"] / tokens}
        if self.arm.uld:
            figures["uld"] = total["uld_0"] / pairs
            figures["rank1_gap"] = total["gap"] / pairs
        for k in range(1, depth + 1):
            figures |= {f"mtp_ce_{k}": total[f"ce_{k}"] / tokens}
            figures |= {f"mtp_uld_{k}": total[f"uld_{k}"] / pairs}
        for name, value in figures.items():
            self._metrics["train"][name].append(value)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """A checkpoint is the plain student; the MTP modules lie beside it in their own file."""
        if self.arm.mtp and self.args.should_save:
            mtp.save(self.model.mtp, Path(output_dir))
        super()._save(output_dir, mtp.without(state_dict or self.model.state_dict()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.arm.mtp:
            mtp.load(self.model.mtp, Path(resume_from_checkpoint))


def settings_depth(settings: SimpleNamespace, arm: Arm) -> int:
    """How many MTP modules an arm trains."""
    return settings.mtp_depth if arm.mtp else 0
