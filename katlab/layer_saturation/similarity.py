"""Layer saturation: how much each decoder layer changes its input, and what it is worth.

Report section 2 measures the cosine similarity between a layer's input and output and finds about
one fourth of Qwen2.5-32B's layers near identity. `measure` does that in one streaming pass over any
decoder of the Qwen2/Qwen3/Llama family (CPU, GPU, 4-bit, device_map); what the loss says of a layer
is in `layer_saturation.damage`.

Deviations from the report, which names the measure and no more:
 1. The first four tokens are kept apart: attention sinks have norms of their own.
 2. Intervals are 90 % Poisson-bootstrap intervals over sequences, kept as running sums.

    report = similarity.measure(model, batches); table = report.overall
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from katlab import UserError
from katlab.lab.rows import replace
from katlab.layer_saturation.passes import decoder_layers

METRICS = ("influence", "update", "attention", "mlp", "attention_share")
FIRST_TOKENS = "first tokens"
SINK_TOKENS = 4
REPLICATES = 200  # of the bootstrap
MAP_POSITIONS = 64  # tokens per batch that the depth map is averaged over


@dataclass
class Saturation:
    """What one streaming pass found.

    layers: one row per group and layer; groups are "all", "first tokens", "domain=...", "mode=...".
    angular: (L+1, L+1) mean angular distance in [0, 1] between the states at any two depths.
    """

    layers: pd.DataFrame
    angular: np.ndarray

    @property
    def overall(self) -> pd.DataFrame:
        """The rows over all text, one per layer, in layer order."""
        return self.layers.query("group == 'all'").reset_index(drop=True)

    def save(self, folder: Path) -> None:
        """Write angular.csv and saturation.csv, each in one piece, into the folder."""
        angular = pd.DataFrame(self.angular)
        replace(folder / "angular.csv", angular.to_csv(index=False))
        replace(folder / "saturation.csv", self.layers.to_csv(index=False))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        angular = pd.read_csv(folder / "angular.csv").to_numpy()
        return cls(pd.read_csv(folder / "saturation.csv"), angular)


def decode(model: PreTrainedModel, batch: dict) -> Tensor:
    """The (B, T, H) last states of a batch, which is brought to the model's device."""
    inputs = {
        key: batch[key].to(model.device) for key in ("input_ids", "attention_mask") if key in batch
    }
    return model.base_model(**inputs, use_cache=False).last_hidden_state


class RunningMeans:
    """Bootstrapped means of per-layer metrics by group: memory is replicates x groups x layers.

    Row 0 of the weights is the plain mean; the others are Poisson(1) counts per sequence, the
    streaming form of resampling sequences with replacement.
    """

    def __init__(self, seed: int):
        self.generator = np.random.default_rng(seed)
        self.sums: dict[str, np.ndarray] = {}  # group -> (R+1, L, M)
        self.counts: dict[str, np.ndarray] = {}  # group -> (R+1,)

    def add(self, batch: dict, sums_GBLM: np.ndarray, masks: Iterable[Tensor]) -> None:
        """Add a batch's sums over the tokens of its two (B, T) masks, see `token_masks`."""
        counts_GB = [mask.sum(1).numpy() for mask in masks]
        everyone = np.arange(len(counts_GB[0]))
        draws = self.generator.poisson(1.0, (REPLICATES, len(everyone)))
        weights_RB = np.concatenate([np.ones((1, len(everyone))), draws])
        groups = [("all", 0, everyone)]
        for key in ("domain", "mode"):
            names = np.asarray(batch.get(key, []))
            for name in dict.fromkeys(names.tolist()):
                groups.append((f"{key}={name}", 0, np.flatnonzero(names == name)))
        for group, g, who in [*groups, (FIRST_TOKENS, 1, everyone)]:
            sums = np.einsum("rb,blm->rlm", weights_RB[:, who], sums_GBLM[g][who])
            self.sums[group] = self.sums.get(group, 0) + sums
            counts = weights_RB[:, who] @ counts_GB[g][who]
            self.counts[group] = self.counts.get(group, 0) + counts

    def frame(self, metrics: tuple[str, ...]) -> pd.DataFrame:
        """One row per group and layer: each metric's mean and its 90 % interval."""
        frames = []
        for group, sums in self.sums.items():
            counts = self.counts[group]
            if counts[0] == 0:
                continue
            filled = counts > 0  # a replicate may have drawn no sequence of a small group
            means = sums[filled] / counts[filled, None, None]
            low, high = np.quantile(means[1:], [0.05, 0.95], axis=0)
            columns = {"group": group, "layer": np.arange(sums.shape[1])}
            for m, metric in enumerate(metrics):
                columns[metric] = means[0, :, m]
                columns[f"{metric}_low"], columns[f"{metric}_high"] = low[:, m], high[:, m]
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)


def token_masks(batch: dict) -> tuple[Tensor, Tensor]:
    """(B, T) masks, on the CPU, of the counted tokens and of the first SINK_TOKENS real ones."""
    ids = batch["input_ids"]
    real = batch.get("attention_mask", torch.ones_like(ids)).bool().cpu()
    first = real & (real.cumsum(1) <= SINK_TOKENS)
    return real & ~first, first


def state_of(args: tuple, kwargs: dict) -> Tensor:
    """The (B, T, H) input of a decoder layer, wherever the model's forward puts it."""
    return args[0] if args else kwargs["hidden_states"]


def tensor_of(output: Tensor | tuple) -> Tensor:
    """The (B, T, H) output of a decoder layer, which some models return in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(-1).double()


class _LayerProbe:
    """Hooks that reduce each layer's states to sums per sequence, and sample some for the map."""

    def __init__(self, layers: nn.ModuleList, stack: ExitStack):
        self.sums: list[Tensor] = []  # one (2, B, M) per layer: counted tokens, first tokens
        self.sample: list[Tensor] = []  # one (P, H) unit-length sample per depth
        for layer in layers:
            for hook in (
                layer.register_forward_pre_hook(self._enter, with_kwargs=True),
                layer.self_attn.register_forward_hook(self._attention),
                layer.mlp.register_forward_hook(self._mlp),
                layer.register_forward_hook(self._leave),
            ):
                stack.callback(hook.remove)

    def begin(self, masks: tuple[Tensor, Tensor], sample_index: Tensor):
        self.masks, self.sample_index = torch.stack(masks), sample_index
        self.sums, self.sample = [], []

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict):
        self.x = state_of(args, kwargs).float()
        if not self.sample:
            self._keep(self.x)

    def _attention(self, module: nn.Module, args: tuple, output: tuple):
        self.attention = torch.linalg.vector_norm(tensor_of(output), dim=-1, dtype=torch.float32)

    def _mlp(self, module: nn.Module, args: tuple, output: Tensor):
        self.mlp = torch.linalg.vector_norm(output, dim=-1, dtype=torch.float32)

    def _leave(self, module: nn.Module, args: tuple, output: Tensor | tuple):
        y = tensor_of(output).float()
        x = self.x.to(y.device)  # a layer that begins another device got its input from the last
        xx, xy, yy = _dot(x, x), _dot(x, y), _dot(y, y)
        size = xx.sqrt()
        share = self.attention / (self.attention + self.mlp)
        update = torch.linalg.vector_norm(y - x, dim=-1)
        values = (1 - xy / (size * yy.sqrt()), update / size, self.attention / size)
        metrics_BTM = torch.stack([*values, self.mlp / size, share], dim=-1)
        masks_GBT = self.masks.to(y.device)
        # Padding may be a zero vector, which has no direction: 0/0 must not reach the sums.
        metrics_BTM = metrics_BTM.double().masked_fill(~masks_GBT.any(0)[..., None], 0.0)
        self.sums.append(torch.einsum("gbt,btm->gbm", masks_GBT.double(), metrics_BTM))
        self._keep(y)

    def _keep(self, state: Tensor):
        rows = state.flatten(0, 1)[self.sample_index.to(state.device)]
        self.sample.append(F.normalize(rows, dim=-1).cpu())


@torch.inference_mode()
def measure(model: PreTrainedModel, batches: Iterable[dict], *, seed: int = 0) -> Saturation:
    """Saturation of every layer from one forward pass over `batches`, by running sums only.

    A batch holds input_ids (B, T), and may hold attention_mask (B, T) and the lists domain and mode
    of B names. Metrics per layer, x its input and y its output, a and m its two updates: influence
    1 - cos(x, y) (block influence, ShortGPT, arXiv 2403.03853), update |y - x|/|x|, attention
    |a|/|x|, mlp |m|/|x|, attention_share |a|/(|a| + |m|); each with a 90 % interval. The depth map
    is arccos(cos)/pi (arXiv 2403.17887) over MAP_POSITIONS tokens per batch. Raises UserError
    on an empty input or a model without a layer stack.
    """
    layers = decoder_layers(model)
    means, sampled = RunningMeans(seed), 0
    angular = np.zeros((len(layers) + 1, len(layers) + 1))
    with ExitStack() as stack:
        probe = _LayerProbe(layers, stack)
        for batch in batches:
            masks = token_masks(batch)
            flat = masks[0].flatten().nonzero().flatten()
            pick = torch.linspace(0, len(flat) - 1, min(MAP_POSITIONS, len(flat))).long()
            probe.begin(masks, flat[pick])
            decode(model, batch)
            sums_LGBM = torch.stack([s.cpu() for s in probe.sums])
            means.add(batch, sums_LGBM.permute(1, 2, 0, 3).numpy(), masks)
            unit_PDH = torch.stack(probe.sample, dim=1)
            cosine_PDD = torch.bmm(unit_PDH, unit_PDH.mT).clamp(-1, 1)
            distance_PDD = (cosine_PDD.arccos() / torch.pi).double()
            angular += distance_PDD.sum(0).numpy()
            sampled += len(pick)
    if not sampled:
        raise UserError(f"No text to measure: give sequences of over {SINK_TOKENS} tokens.")
    np.fill_diagonal(angular, 0.0)  # arccos of a rounded 1 is not quite 0
    return Saturation(means.frame(METRICS), angular / sampled)
