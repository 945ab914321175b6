"""Where every byte of a safetensors checkpoint lies, and which of them the child is made of.

Only headers are read: the plan, index, names and shapes of an 81 GB child are known in a second.

    shards = safetensors_layout.layout(Path("Qwen2.5-32B"), plan)
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from katlab import UserError
from katlab.layer_saturation.plan import LayerPlan, child_tensors

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000  # the Hub's usual shard
NUMPY = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Piece:
    """One tensor of the child and the bytes of the parent that it is made of."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    factor: float
    source: str  # file name in the parent's folder
    offset: int  # of its first byte in that file
    size: int  # in bytes


def read_header(path: Path) -> tuple[dict, int]:
    """Header of a safetensors file and the position of its first tensor byte.

    UserError when the file cannot be read, is no safetensors, or is shorter than it says.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            end = max((v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"))
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


def source_files(source: Path) -> list[str]:
    """Names of the parent's safetensors files, in the order of its index."""
    if (source / INDEX).is_file():
        weight_map = json.loads((source / INDEX).read_text())["weight_map"]
        return sorted(set(weight_map.values()))
    if (source / "model.safetensors").is_file():
        return ["model.safetensors"]
    raise UserError(f"No safetensors weights in {source}; save the model as safetensors first.")


def read_config(source: Path) -> dict:
    """config.json of a model folder; UserError when there is none or its weights are quantised."""
    try:
        config = json.loads((source / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"No readable config.json in {source}; give a model folder.") from error
    if "quantization_config" in config:
        raise UserError(f"The weights in {source} are quantised; upscale the original weights.")
    return config


def layout(source: Path, plan: LayerPlan, shard_bytes: int = SHARD_BYTES) -> list[list[Piece]]:
    """The child's shards as lists of pieces, in the parent's byte order so that ranges stay long.

    Raises UserError when a header and the index or the plan disagree.
    """
    pieces = []
    for file in source_files(source):
        header, start = read_header(source / file)
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            made = child_tensors(name, plan)
            if not made:
                raise UserError(
                    f"{name} in {file} is beyond the plan's {plan.parent_layers} layers; plan for"
                    " this model."
                )
            begin, end = entry["data_offsets"]
            for copy, (child_name, factor) in enumerate(made):
                dtype, shape = entry["dtype"], tuple(entry["shape"])
                at, size = start + begin, end - begin
                piece = Piece(child_name, dtype, shape, factor, file, at, size)
                if factor not in (0.0, 1.0) and piece.dtype not in NUMPY:
                    raise UserError(f"Cannot scale {name} of dtype {piece.dtype}; start with copy.")
                pieces.append((file, copy, piece.offset, piece))
    if (source / INDEX).is_file():
        listed = json.loads((source / INDEX).read_text())["weight_map"]
        missing = {c for n in listed for c, _ in child_tensors(n, plan)} - {
            p.name for *_, p in pieces
        }
        if missing:
            raise UserError(f"{min(missing)} is in the index of {source} but in no shard.")
    shards: list[list[Piece]] = [[]]
    filled = 0
    for *_, piece in sorted(pieces, key=lambda p: p[:3]):
        if shards[-1] and filled + piece.size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(piece)
        filled += piece.size
    return shards


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
