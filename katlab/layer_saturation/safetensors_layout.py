"""Where every byte of a safetensors checkpoint lies, and which of them the child is made of.

Only headers are read: the plan, index, names and shapes of an 81 GB child are known in a second.

    shards = safetensors_layout.layout(Path("Qwen2.5-32B"), plan)
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import StringConstraints, TypeAdapter

from katlab import UserError, sizes
from katlab.layer_saturation.architectures import child_tensors, layer_of, shift, writer_of
from katlab.layer_saturation.plan import LayerPlan, costs

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # the Hub's usual shard
QUANTISED = ("quantize_config.json", "quant_config.json")  # GPTQ and AWQ say so beside config.json
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$")]
NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


_HEADER = TypeAdapter(dict[str, _Entry])


@dataclass(frozen=True)
class Piece:
    """One tensor of the child and the bytes of the parent that it is made of."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    factor: float  # a weight w becomes (w + shift) factor - shift
    shift: float
    source: str  # file name in the parent's folder
    offset: int  # of its first byte in that file
    size: int  # in bytes


def read_header(path: Path) -> tuple[dict, int]:
    """The tensors in the header of a safetensors file, and the position of the first one's bytes.

    UserError when the file cannot be read, is no safetensors, or is shorter than it says.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max(entry.data_offsets[1] for entry in _HEADER.validate_python(header).values())
        whole = path.stat().st_size == 8 + length + end
    except OSError as error:
        raise UserError(
            f"The shard {path} cannot be read ({error.strerror}); fetch it again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise UserError(f"The shard {path} is damaged; fetch it again.") from error
    if not whole:
        raise UserError(f"The shard {path} is cut short; fetch it again.")
    return header, 8 + length


def weight_map(source: Path) -> dict[str, str]:
    """Which file has each tensor by the index of a folder, {} without one; UserError if damaged."""
    path = source / INDEX
    if not path.is_file():
        return {}
    try:
        listed = json.loads(path.read_text())["weight_map"]
        return TypeAdapter(dict[str, FileName]).validate_python(listed, strict=True)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is no index of safetensors files; fetch it again.") from error


def source_files(source: Path) -> list[str]:
    """Names of the parent's safetensors files, in the order of its index."""
    if listed := weight_map(source):
        return sorted(set(listed.values()))
    if (source / "model.safetensors").is_file():
        return ["model.safetensors"]
    raise UserError(f"No safetensors weights in {source}; save the model as safetensors first.")


def stored(source: Path) -> dict[str, Piece]:
    """Every tensor of a folder and where it lies, each once.

    Raises UserError for a tensor that the index names and no file has, or that two files have with
    different values.
    """
    found: dict[str, Piece] = {}
    for file in source_files(source):
        header, start = read_header(source / file)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            shape, at, size = tuple(entry["shape"]), start + begin, end - begin
            piece = Piece(name, entry["dtype"], shape, 1.0, 0.0, file, at, size)
            if name not in found:
                found[name] = piece
            elif not _equal(source, found[name], piece):
                raise UserError(
                    f"{name} lies in {found[name].source} and otherwise in {file}; fetch {source}"
                    " again."
                )
    if missing := weight_map(source).keys() - found.keys():
        raise UserError(f"{min(missing)} is in the index of {source} but in no shard.")
    return found


def _equal(source: Path, one: Piece, other: Piece) -> bool:
    """Whether two tensors are the same, read a part at a time."""
    if (one.dtype, one.shape, one.size) != (other.dtype, other.shape, other.size):
        return False
    with (source / one.source).open("rb") as a, (source / other.source).open("rb") as b:
        a.seek(one.offset), b.seek(other.offset)
        parts = (min(2**22, one.size - done) for done in range(0, one.size, 2**22))
        return all(a.read(part) == b.read(part) for part in parts)


def read_config(source: Path) -> dict:
    """config.json of a decoder's folder.

    UserError when there is none, when its weights are quantised, or when it describes several
    models, as those that see do.
    """
    path = source / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"No readable config.json in {source}; give a model folder.") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no object; fetch it again.")
    nested = [key for key, value in config.items() if _is_model(key, value)]
    if nested:
        raise UserError(
            f"{path} describes its decoder in {nested[0]}, beside other models; save the text model"
            " alone and upscale that."
        )
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or isinstance(layers, bool) or layers < 1:
        raise UserError(f"{path} gives no number num_hidden_layers; give a decoder's folder.")
    if not isinstance(config.get("model_type"), str):
        raise UserError(f'{path} names no model_type; add it, as "qwen2".')
    beside = [name for name in QUANTISED if (source / name).is_file()]
    if config.get("quantization_config") or beside:
        raise UserError(f"The weights in {source} are quantised; upscale the original weights.")
    if (source / "adapter_config.json").is_file():
        raise UserError(f"{source} holds an adapter for its layers; merge it into the model first.")
    return config


def _is_model(key: str, value: object) -> bool:
    return key.endswith("_config") and isinstance(value, dict) and "num_hidden_layers" in value


def layout(
    source: Path, plan: LayerPlan, kind: str, shard_bytes: int = SHARD_BYTES
) -> list[list[Piece]]:
    """The child's shards as lists of pieces, in the parent's byte order so that ranges stay long.

    `kind` is the configuration's model_type. Raises UserError when the files, the index and the
    plan disagree.
    """
    pieces = []
    for name, tensor in stored(source).items():
        made = child_tensors(name, plan, kind)
        if not made:
            raise UserError(
                f"{name} in {tensor.source} is beyond the plan's {plan.parent_layers} layers; plan"
                " for this model."
            )
        for copy, (child_name, factor) in enumerate(made):
            writes = (place := layer_of(name)) and writer_of(place[1], kind)
            if writes and tensor.dtype not in NUMPY:
                raise UserError(
                    f"{name} of dtype {tensor.dtype} is quantised; upscale the original weights."
                )
            piece = replace(tensor, name=child_name, factor=factor, shift=shift(kind))
            pieces.append((tensor.source, copy, tensor.offset, piece))
    shards: list[list[Piece]] = [[]]
    filled = 0
    for *_, piece in sorted(pieces, key=lambda p: p[:3]):
        if shards[-1] and filled + piece.size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(piece)
        filled += piece.size
    return shards


def sizes_of(source: Path, plan: LayerPlan) -> dict:
    """Layers and parameters of parent and child; of families that `sizes` counts, cost per token.

    UserError as for `read_config`, `stored` and `layout`.
    """
    config = read_config(source)
    kind = config["model_type"]
    if kind in sizes.KINDS:
        return costs(config, plan)
    child = [tensor for shard in layout(source, plan, kind) for tensor in shard]
    return {
        "parent_layers": plan.parent_layers,
        "child_layers": plan.child_layers,
        "parent_parameters": sum(math.prod(tensor.shape) for tensor in stored(source).values()),
        "child_parameters": sum(math.prod(tensor.shape) for tensor in child),
    }


def shard_names(count: int) -> list[str]:
    """The Hub's file names for `count` shards."""
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def header_bytes(pieces: list[Piece]) -> bytes:
    """The safetensors header of a shard, padded so that tensors begin at a multiple of 8."""
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    position = 0
    for piece in pieces:
        entries[piece.name] = {
            "dtype": piece.dtype,
            "shape": piece.shape,
            "data_offsets": [position, position + piece.size],
        }
        position += piece.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
