"""Layer plans: which layers a deeper child takes from its parent, and how the copies start.

Report section 2 duplicates the saturated quarter of Qwen2.5-32B's 64 layers: 80 layers, 40.57B
parameters, each chosen layer once. It states neither which layers nor how copies start; a plain
copy is not free (notebook 01), so both are arguments here. Without arguments, the most saturated
quarter is duplicated in place; the report's start is "copy", the default here "half-step".

Starts (W stands for what writes to the residual stream, o_proj and down_proj in most decoders):
    copy       the copy is exact                                   (SOLAR, Yi-9B)
    zero       W = 0 in the copy: the child equals its parent      (LLaMA-Pro, arXiv 2401.02415)
    half-step  W/2 in original and copy, W/(n+1) for n copies: one Euler step split in two
    alpha      alpha W in the copy

This module needs neither torch nor transformers: planning 40B takes no memory and no time.

    chosen = plan.plan(64, start="copy", table=saturation.overall)
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from katlab import UserError, sizes

if TYPE_CHECKING:  # writing 81 GB needs no tables
    import pandas as pd

_WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
CHOICES = ("similarity", "skip-damage", "repeat-damage", "run", "evenly", "list")
STARTS = ("copy", "zero", "half-step", "alpha")
ORDERS = ("interleaved", "stacked")
_COLUMN = {"similarity": "influence", "skip-damage": "skip", "repeat-damage": "repeat"}


@dataclass(frozen=True)
class LayerPlan:
    """Child layer i is parent layer source[i]; its residual outputs are multiplied by scale[i]."""

    parent_layers: int
    source: tuple[int, ...]
    is_new: tuple[bool, ...]
    scale: tuple[float, ...]
    choice: str
    order: str
    start: str

    @property
    def child_layers(self) -> int:
        return len(self.source)

    @property
    def duplicated(self) -> list[int]:
        """Parent layers that got a copy, ascending, as often as they were copied."""
        return sorted(s for s, new in zip(self.source, self.is_new, strict=True) if new)

    def require(self, layers: int) -> None:
        """UserError unless this is a plan for a model of so many layers."""
        if layers != self.parent_layers:
            raise UserError(
                f"The plan is for {self.parent_layers} layers and the model has {layers}; plan"
                " again."
            )

    def save(self, path: Path) -> None:
        """Write the plan; UserError when that is impossible."""
        try:
            path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        except OSError as error:
            raise UserError(
                f"{path} cannot be written ({error.strerror}); name another file with --out."
            ) from error

    @classmethod
    def load(cls, path: Path) -> LayerPlan:
        """Read a plan by `save`, or by the writer beside its child; UserError if it is neither."""
        try:
            written = json.loads(Path(path).read_text())
            plan = TypeAdapter(cls).validate_python(written.get("plan", written))
            pairs = list(zip(plan.source, plan.is_new, plan.scale, strict=True))
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path} is no layer plan; write one with `katlab upscale plan`."
            ) from error
        kept = [source for source, new, _ in pairs if not new]
        known = set(plan.source) <= set(kept) and all(math.isfinite(s) for s in plan.scale)
        if not known or kept != list(range(len(kept))) or len(kept) != plan.parent_layers:
            raise UserError(
                f"The plan {path} does not keep every layer of the parent once and in order; write"
                " one with `katlab upscale plan`."
            )
        return plan


def plan(
    layers: int,
    add: int = 0,
    *,
    choice: str = "similarity",
    order: str = "interleaved",
    start: str = "half-step",
    alpha: float = 0.25,
    table: pd.DataFrame | None = None,
    angular: np.ndarray | None = None,
    chosen: Sequence[int] = (),
) -> LayerPlan:
    """Plan `add` new layers (0: a quarter of `layers`) on a parent of `layers` layers.

    `table` has one row per layer with the columns that `choice` ranks by, lowest first: influence
    (similarity), skip (skip-damage), repeat (repeat-damage). "run" takes the contiguous run with
    the smallest angular distance from its input to its output in `angular` (L+1, L+1); "evenly"
    takes the last layer of each of `add` equal groups (LLaMA-Pro); "list" takes `chosen`.
    interleaved writes a a b b, stacked repeats each contiguous run as a whole, a b a b. Raises
    UserError for an unknown name, a missing table or an impossible number of layers.
    """
    for value, known in ((choice, CHOICES), (order, ORDERS), (start, STARTS)):
        if value not in known:
            raise UserError(f"{value!r} is not possible here; use one of {', '.join(known)}.")
    if not math.isfinite(alpha):
        raise UserError(f"alpha = {alpha} is no factor; give a number, as 0.25.")
    if choice == "list":
        picked = sorted(chosen)
        if not picked or picked[0] < 0 or picked[-1] >= layers:
            raise UserError(f"The list must name layers from 0 to {layers - 1}.")
    else:
        add = add or layers // 4
        if not 1 <= add <= layers:
            raise UserError(f"Cannot add {add} layers to {layers}; choose from 1 to {layers}.")
        picked = _pick(layers, add, choice, table, angular)
    count = Counter(picked)
    if order == "interleaved":
        sequence = [(i, k) for i in range(layers) for k in range(1 + count[i])]
    else:
        sequence = _stack(layers, count)
    scale = {
        "copy": lambda i, k: 1.0,
        "zero": lambda i, k: 0.0 if k else 1.0,
        "half-step": lambda i, k: 1.0 / (1 + count[i]),
        "alpha": lambda i, k: alpha if k else 1.0,
    }[start]
    return LayerPlan(
        parent_layers=layers,
        source=tuple(i for i, _ in sequence),
        is_new=tuple(k > 0 for _, k in sequence),
        scale=tuple(float(scale(i, k)) for i, k in sequence),
        choice=choice,
        order=order,
        start=start,
    )


def _pick(
    layers: int, add: int, choice: str, table: pd.DataFrame | None, angular: np.ndarray | None
) -> list[int]:
    if choice == "evenly":
        return [(k + 1) * layers // add - 1 for k in range(add)]
    if choice == "run":
        if angular is None:
            raise UserError("Choosing a run needs the depth map; measure the model first.")
        costs = [angular[i, i + add] for i in range(layers - add + 1)]
        return list(range(int(np.argmin(costs)), int(np.argmin(costs)) + add))
    column = _COLUMN[choice]
    if table is None or column not in table or len(table) != layers:
        raise UserError(
            f"Choosing by {choice} needs a table of {layers} layers with the column {column};"
            " measure the model first."
        )
    return sorted(np.argsort(table[column].to_numpy(), kind="stable")[:add].tolist())


def _stack(layers: int, count: Counter) -> list[tuple[int, int]]:
    """(layer, which pass) with every contiguous run of duplicated layers repeated as a whole."""
    sequence, i = [], 0
    while i < layers:
        end = i + 1
        while count[i] and end < layers and count[end]:
            end += 1
        for k in range(1 + max(count[j] for j in range(i, end))):
            sequence += [(j, k) for j in range(i, end) if k <= count[j]]
        i = end
    return sequence


def costs(config: Mapping, plan: LayerPlan) -> dict:
    """Layers, parameters, cache bytes and forward FLOPs (at 4,096 tokens) per token, of both.

    UserError for a configuration that names no width, or an architecture not counted here.
    """
    plan.require(config["num_hidden_layers"])
    missing = [key for key in _WIDTHS if not isinstance(config.get(key), int)]
    if missing:
        raise UserError(f"config.json gives no {missing[0]}; repair that file.")
    usual = {"num_key_value_heads": config["num_attention_heads"], "tie_word_embeddings": False}
    config = usual | {key: value for key, value in config.items() if value is not None}
    row = {}
    for who, layers in (("parent", plan.parent_layers), ("child", plan.child_layers)):
        c = config | {"num_hidden_layers": layers}
        row[f"{who}_layers"] = layers
        row[f"{who}_parameters"] = sizes.parameters(c)["total"]
        row[f"{who}_kv_bytes_per_token"] = sizes.kv_bytes_per_token(c)
        row[f"{who}_flops_per_token"] = sizes.flops_per_token(c, 4096)
    return row
