"""The distillation trainer: TRL's SFTTrainer with cross-entropy, KL or ULD, chunk and MTP terms.

Report sections 3.1 and 3.3; what each term is stands in `uld` and `mtp`, what an arm
trains in `mtp_distillation.stage`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from trl import SFTTrainer
from trl.models.utils import _ForwardRedirection

from katlab.mtp_distillation import mtp, uld
from katlab.mtp_distillation.settings import Settings


@dataclass(frozen=True)
class Arm:
    """What one training adds to cross-entropy; its folder under checkpoints/ has its name."""

    name: str
    title: str
    uld: bool
    mtp: bool


class DistillationTrainer(SFTTrainer):
    """TRL's SFTTrainer with another loss; the dataset and the collator bring the teachers' word."""

    def __init__(
        self, *args, arm: Arm, settings: Settings, readers: Sequence[nn.Module] = (), **kwargs
    ):
        super().__init__(*args, **kwargs)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # TRL rounds what is trained on a quantised model to bf16
                parameter.data = parameter.data.float()
        self.arm, self.settings = arm, settings
        self.readers = readers if arm.uld else ()  # teachers that read along, by their place
        self.depth = settings.mtp_depth if arm.mtp else 0
        self._since: dict[str, Tensor] = {}  # sums since the last log, by name
        self._through = _ForwardRedirection()  # the loss runs inside DDP's or FSDP's forward

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Sum of the losses of this micro-batch over the reply tokens of the whole batch."""
        plain, settings = self.accelerator.unwrap_model(model), self.settings
        with self.accelerator.autocast():  # the redirected forward passes by accelerate's own
            sums = self._through(model, plain, self._sums, plain, inputs)
        scale = mtp.weight(
            self.state.global_step / self.state.max_steps,
            settings.mtp_weight_start,
            settings.mtp_weight_end,
        )
        total = 0.0
        for k in range(self.depth + 1):
            part = sums[f"ce_{k}"] + settings.uld_weight * sums[f"uld_{k}"]
            part = part + settings.kl_weight * sums[f"kl_{k}"]
            total = total + (scale / self.depth * part if k else part)
        total = total + settings.chunk_weight * sums["chunk"]
        for name, value in sums.items():
            self._since[name] = self._since.get(name, 0) + value.detach().float()
        # num_items_in_batch counts the tokens of every rank, and DDP averages the gradients
        return total / num_items_in_batch * self.accelerator.num_processes

    def _sums(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every term summed over the reply tokens of this micro-batch, by depth."""
        if not self.arm.uld:
            batch = batch | {"signal": torch.full_like(batch["signal"], -1)}
        labels, sums = batch["labels"], {}  # (B, T)
        for k, (row, at, found) in enumerate(losses(model, batch, self.settings, self.readers)):
            sums[f"ce_{k}"], sums[f"uld_{k}"] = -found.logp.sum(), found.uld.sum()
            sums[f"kl_{k}"] = found.kl.sum()
            sums[f"right_{k}"] = (found.best == labels[row, at]).sum()
            if k == 0:
                sums["tokens"], sums["paired"] = (
                    (labels != -100).sum(),
                    (batch["signal"] >= 0).sum(),
                )
                sums["gap"] = found.gap.abs().sum()
                if self.readers:
                    sums["read"] = (batch["teacher_at"] >= 0).sum()
                chunks = uld.chunk_losses(found.logp, batch["chunk"][row, at], batch["chunk_logp"])
                sums["chunk"] = chunks.sum() if self.arm.uld else chunks.sum() * 0.0
        return sums

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means per token since the last log, over all micro-batches and ranks."""
        if self._since:
            values = self.accelerator.reduce(torch.stack([*self._since.values()]), "sum").tolist()
            total = dict(zip(self._since, values, strict=True))
            tokens, pairs = max(total["tokens"], 1.0), max(total["paired"], 1.0)
            logs |= {"ce": total["ce_0"] / tokens, "token_accuracy": total["right_0"] / tokens}
            if self.readers:
                logs["kl"] = total["kl_0"] / max(total["read"], 1.0)
            if self.arm.uld and total["paired"]:
                logs |= {"uld": total["uld_0"] / pairs, "rank1_gap": total["gap"] / pairs}
            for k in range(1, self.depth + 1):
                logs[f"mtp_ce_{k}"] = total[f"ce_{k}"] / tokens
                logs[f"mtp_uld_{k}"] = total[f"uld_{k}"] / pairs
                if self.readers:
                    logs[f"mtp_kl_{k}"] = total[f"kl_{k}"] / max(total["read"], 1.0)
            self._since = {}
        super().log(logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """A checkpoint is the plain student; the MTP modules lie beside it in their own file."""
        if self.arm.mtp and self.args.should_save:
            mtp.save(self.model.mtp, Path(output_dir))
        super()._save(output_dir, mtp.without(state_dict or self.model.state_dict()))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.arm.mtp:
            mtp.load(self.model.mtp, Path(resume_from_checkpoint))


def losses(
    model: nn.Module,
    batch: dict[str, Tensor],
    settings: Settings,
    readers: Sequence[nn.Module] = (),
) -> list[tuple[Tensor, Tensor, uld.TokenLosses]]:
    """Row (N,), position (N,) and losses of a batch's reply tokens, by depth; 0 is the student.

    A batch of `Collator(tables, depth)` has the targets of so many depths. Each of the `readers`
    reads what `teacher_ids` says, once for all depths.
    """
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    head, found = mtp.causal_of(model).get_output_embeddings(), []
    read = [states_of(reader, batch) for reader in readers]
    for k, states in enumerate(mtp.states(model, batch["input_ids"], batch["attention_mask"])):
        row, at = batch[f"row_{k}"], batch[f"at_{k}"]
        told = []
        for place, (reader, theirs) in enumerate(zip(readers, read, strict=True)):
            where = batch["teacher_at"][row, at]
            mine = (where >= 0) & (batch["reader"][row] == place)
            said = theirs[row, (where - 1).clamp(min=0)]  # of the token before
            told.append(uld.Told(said, reader.get_output_embeddings(), mine))
        of_tokens = uld.token_losses(
            states[row, at - 1 - k],
            head,
            batch["labels"][row, at],
            batch["signal"][row, at],
            batch["top"],
            batch["tail"],
            temperature=settings.temperature,
            chunk=settings.head_chunk,
            told=told,
        )
        found.append((row, at, of_tokens))
    return found


@torch.no_grad()
def states_of(reader: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """A teacher's states (B, T', d) before its head, over what it reads of a batch."""
    ids, mask = (batch[name].to(reader.device) for name in ("teacher_ids", "teacher_mask"))
    output = reader.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False)
    return output.last_hidden_state.to(batch["teacher_ids"].device)
