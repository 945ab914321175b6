"""Is a written child what its plan says? Its files against the parent's, then its loss.

verify.files(Path("Qwen2.5-32B"), Path("KAT-40B"), plan)
expected = verify.Expected(parent, plan, held_out); expected.met_by(child)
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel

from katlab import UserError
from katlab.layer_saturation import configuration
from katlab.layer_saturation.architectures import child_tensors, shift
from katlab.layer_saturation.child import Reference, mean_loss, predict
from katlab.layer_saturation.passes import scaled
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.safetensors_layout import read_config, source_files, stored


def files(source: Path, target: Path, plan: LayerPlan) -> int:
    """Compare a child's folder with its parent's, one tensor in memory at a time.

    The configuration and the names of the tensors must be the plan's, every tensor the parent's
    times its factor, bit by bit and in the parent's dtype. Returns the number of tensors; raises
    UserError at the first that differs.
    """
    config = read_config(source)
    if read_config(target) != configuration.of_child(config, plan):
        raise UserError(f"{target}/config.json is not what the plan says; write the child again.")
    with ExitStack() as stack:
        parent, child = (_tensors(folder, stack) for folder in (source, target))
        kind = config["model_type"]
        made = {new: (old, f) for old in parent for new, f in child_tensors(old, plan, kind)}
        wrong = made.keys() ^ child.keys() or next(
            (
                {new}
                for new, (old, factor) in made.items()
                if not _same(child[new](), parent[old](), factor, shift(kind))
            ),
            set(),
        )
    if wrong:
        raise UserError(f"{min(wrong)} is not what the plan says; write the child again.")
    return len(made)


def _tensors(folder: Path, stack: ExitStack) -> dict[str, Callable[[], Tensor]]:
    """How to read every tensor of a folder."""
    read: dict[str, Callable[[], Tensor]] = {}
    files = {f: stack.enter_context(safe_open(folder / f, "pt")) for f in source_files(folder)}
    for name, tensor in stored(folder).items():
        read[name] = partial(files[tensor.source].get_tensor, name)
    return read


def _same(found: Tensor, parent: Tensor, factor: float, shift: float) -> bool:
    return found.dtype == parent.dtype and torch.equal(found, scaled(parent, factor, shift))


class Expected:
    """What a child must be found to do, taken from its parent before that leaves memory.

    loss: the parent's and the predicted child's mean loss in nats per token over `held_out`.
    """

    def __init__(self, parent: PreTrainedModel, plan: LayerPlan, held_out: list[dict]):
        self.plan, self.held_out = plan, held_out
        self.loss = predict(parent, plan, held_out)
        self.reference = Reference(parent, held_out)

    def met_by(self, child: PreTrainedModel) -> dict[str, float]:
        """Losses of the reloaded child and how it differs (`Reference.against`).

        UserError if the loss does not move as predicted, or, with start "zero", if any logit is
        not the parent's own. In less than float32 a factor on a matrix rounds otherwise than one
        on its output, as it was predicted, so the loss may be 0.01 nats off instead of 0.0001.
        """
        plain = child.dtype == torch.float32 and not getattr(child, "is_quantized", False)
        told, loss = self.reference.against(child), mean_loss(child, self.held_out)
        change, predicted = loss - self.loss["parent_loss"], self.loss["loss_change"]
        if not abs(change - predicted) <= (1e-4 if plain else 1e-2):  # nan is no agreement
            raise UserError(
                f"The loss moved by {change:+.4f} nats and not by the predicted {predicted:+.4f};"
                " write the child again."
            )
        if self.plan.start == "zero" and told["kl"] != 0.0:
            raise UserError("A child started at zero must equal its parent; write it again.")
        return {
            "parent_loss": self.loss["parent_loss"],
            "student_loss": loss,
            "predicted_change": predicted,
            **told,
        }
