"""Before a child is written: is it what its plan says? Tried on a small copy of the parent.

The copy has the parent's configuration and all its layers, but widths of 32 and random weights,
biases too. Its file is deepened as the parent's will be and loaded by transformers; the same plan
is run in memory, where what a branch says is scaled and not a weight. Wrong residual writers, a
norm behind them, or a configuration that does not follow the layers show before a byte is written.

    probe.prove(source, plan, configuration.of_child(read_config(source), plan))
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from katlab import UserError
from katlab.layer_saturation.architectures import child_tensors, layer_of, shift
from katlab.layer_saturation.configuration import said, silent, typed
from katlab.layer_saturation.passes import scaled, upscaled
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.safetensors_layout import read_config, stored

WIDTHS = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8,
    "max_position_embeddings": 64, "moe_intermediate_size": 16, "v_head_dim": 8,
    "shared_expert_intermediate_size": 16, "q_lora_rank": 8, "kv_lora_rank": 8,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "n_group": 1, "topk_group": 1,
}  # fmt: skip
AT_MOST = {
    "sliding_window": 4, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "n_shared_experts": 1,
}  # fmt: skip
FILE = "model.safetensors"
PARAMETERS = 20_000_000  # a larger copy has a width that is not known here
PACKED = re.compile(r"qweight|qzeros|\.scales$|g_idx|weight_scale|packed|absmax|_blocks")
UNUSED = r"rotary_emb\.inv_freq$"  # written by old releases, read by none


def prove(source: Path, plan: LayerPlan, config: dict) -> None:
    """UserError unless a small copy of `source`, deepened by `plan`, is what the plan says.

    `config` is the child's. The deepened copy must say what the parent says whose layers run in
    the plan's order with their outputs scaled; a factor of 0 must silence a layer exactly, and
    other factors must not leave a plain copy. The files of `source` must have the copy's tensors.
    """
    own = read_config(source)
    kind, start = own["model_type"], plan.start
    with _aside(), TemporaryDirectory() as folder:
        parent, child = Path(folder) / "parent", Path(folder) / "child"
        try:
            model = _small_model(typed(own))
            model.save_pretrained(parent)
            _same_names(source, parent, model)
            _same_shapes(source, parent, model, typed(own))
            _small_config(typed(config)).save_pretrained(child)
            made = {
                name: scaled(tensor, factor, shift(kind)).clone()
                for old, tensor in load_file(parent / FILE).items()
                for name, factor in child_tensors(old, plan, kind)
            }
            save_file(made, child / FILE, {"format": "pt"})
            told = _logits(AutoModelForCausalLM.from_pretrained(child, dtype=torch.float32))
            fault = _fault(model, plan, told)
        except UserError:
            raise
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"No small copy of {source} can be tried in {folder} ({said(error)}); free some"
                " space there or set TMPDIR."
            ) from error
        except Exception as error:  # whatever an architecture raises at a child that is none
            fault = f"does not run ({said(error)})"
    if fault:
        remedy = "upscale another model" if start == "copy" else "try --start copy"
        raise UserError(f"A deeper {kind} model, start {start}, {fault}; {remedy}.")


@contextmanager
def _aside() -> Iterator[None]:
    """Logs, random numbers and threads as if nothing had been tried; matrices of 32 need one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with silent(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


def _fault(model: PreTrainedModel, plan: LayerPlan, told: Tensor) -> str:
    """What is wrong with what the deepened copy said; "" if it is what the plan says."""
    own, expected = _logits(model), _as_child(model, plan, plan.scale)
    if not bool(expected.isfinite().all()) or not _close(told, expected):
        return "does not say what its plan says"
    if plan.start == "zero" and not _close(told, own):
        return "does not begin as its parent"
    if set(plan.scale) != {1.0}:
        off = tuple(float(not new) for new in plan.is_new)
        if not _close(_as_child(model, plan, off), own):
            return "has more in a layer than attention and MLP"
        if _close(told, _as_child(model, plan, (1.0,) * plan.child_layers)):
            return "says what a plain copy says, since a norm undoes the factor"
    return ""


def _as_child(model: PreTrainedModel, plan: LayerPlan, scale: tuple[float, ...]) -> Tensor:
    with upscaled(model, replace(plan, scale=scale)) as deeper:
        return _logits(deeper)


@torch.inference_mode()
def _logits(model: PreTrainedModel) -> Tensor:
    return model.eval()(torch.arange(1, 13)[None], use_cache=False).logits.float()


def _close(one: Tensor, other: Tensor) -> bool:
    return float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


def _small_model(config: PreTrainedConfig) -> PreTrainedModel:
    """All layers of the configuration, narrow, with random weights, norms and biases."""
    small, kind = _small_config(config), config.model_type
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        count = AutoModelForCausalLM.from_config(small).num_parameters()
    if count > PARAMETERS:
        raise UserError(f"A {kind} model has sizes that are not known here; upscale another.")
    model = AutoModelForCausalLM.from_config(small, dtype=torch.float32)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        matrix = parameter.dim() > 1
        parameter.data = noise * 0.3 if matrix else parameter.data + noise * 0.1
    return model


def _small_config(config: PreTrainedConfig) -> PreTrainedConfig:
    values: dict[str, Any] = config.to_dict()
    heads, kv = values.get("num_attention_heads"), values.get("num_key_value_heads")
    values |= {key: width for key, width in WIDTHS.items() if values.get(key)}
    values |= {key: min(most, values[key]) for key, most in AT_MOST.items() if values.get(key)}
    values |= {key: 0 for key, value in values.items() if key.endswith("token_id") and value}
    values |= {"num_attention_heads": 4, "dtype": "float32"}
    if kv:
        values["num_key_value_heads"] = 4 if kv == heads else min(kv, 2)
    if rope := values.get("rope_parameters"):
        values["rope_parameters"] = _plain(rope)
    return type(config).from_dict(values)


def _plain(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotary positions without long-context factors, whose lists are as wide as a head."""
    each: dict[str, Any] = {k: _plain(v) for k, v in rope.items() if isinstance(v, dict)}
    kept = {k: v for k, v in rope.items() if k in ("rope_theta", "partial_rotary_factor")}
    return each or kept | {"rope_type": "default"}


def _same_names(source: Path, small: Path, model: PreTrainedModel) -> None:
    """UserError unless the layers in the files have the tensors that the small copy's have."""
    kind = model.config.model_type
    unused = re.compile("|".join([UNUSED, *(model._keys_to_ignore_on_load_unexpected or ())]))
    found, wanted = _by_layer(source), _by_layer(small)
    if len(wanted) != model.config.num_hidden_layers:
        raise UserError(f"Layers of {kind} models are not known here; upscale another model.")
    for layer, tails in wanted.items():
        missing = [t for t in tails if t not in found[layer] and not t.endswith("bias")]
        extra = [t for t in found[layer] if t not in tails and not unused.search(found[layer][t])]
        if any(PACKED.search(tail) for tail in extra):
            raise UserError(f"The weights in {source} are quantised; upscale the original weights.")
        if missing or extra:
            verb = "lacks" if missing else "has"
            raise UserError(
                f"Layer {layer} in {source} {verb} {min(missing or extra)}, unlike {kind} models;"
                " fetch the original weights."
            )


def _same_shapes(source: Path, small: Path, model: PreTrainedModel, own: PreTrainedConfig) -> None:
    """UserError unless the files name their tensors as the copy's do, in the sizes of `own`."""
    prefix = f"{model.base_model_prefix}."
    files = {name: piece.shape for name, piece in stored(source).items()}
    names = {name.removeprefix(prefix): name for name in files}  # transformers reads either
    narrow, saved = model.state_dict(), stored(small)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(own).state_dict()
    for name, piece in saved.items():
        found = name if name in files else names.get(name.removeprefix(prefix), "")
        if not found and not name.endswith("bias"):
            raise UserError(f"{source} lacks {name}; fetch the original weights.")
        same = name in narrow and tuple(narrow[name].shape) == piece.shape
        if found and same and tuple(whole[name].shape) != files[found]:
            raise UserError(
                f"{found} in {source} has the shape {list(files[found])}, and its config.json"
                f" {list(whole[name].shape)}; fetch both again."
            )


def _by_layer(folder: Path) -> dict[int, dict[str, str]]:
    """The tensors of every layer: what they are called within it, and in full."""
    tails: dict[int, dict[str, str]] = defaultdict(dict)
    for name in stored(folder):
        if place := layer_of(name):
            tails[place[0]][place[1]] = name
    return tails
