"""Write an upscaled checkpoint without loading it: bytes of safetensors, copied by the kernel.

Report section 2 at full size: 65 GB of Qwen2.5-32B become 81 GB of a 40B. The safetensors headers
say where every tensor lies, so the child is new headers plus ranges of the parent's files; a tensor
is decoded only where its start scales it. Memory stays at some tens of megabytes whatever the size.

The child grows in DST.partial and is renamed to DST when it is whole. Run again after an
interruption, finished shards are kept. Beside the weights lie upscale.json (plan, layer map, start,
SHA-256 of the source files) and mergekit.yaml (the same child by arcee-ai/mergekit).

    writer.write(Path("Qwen2.5-32B"), Path("KAT-40B"), plan)
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby, zip_longest
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

import katlab
from katlab import UserError
from katlab.layer_saturation import safetensors_bytes
from katlab.layer_saturation.plan import LayerPlan, child_config
from katlab.layer_saturation.safetensors_layout import (
    INDEX,
    SHARD_BYTES,
    Piece,
    header_bytes,
    layout,
    read_config,
    shard_names,
    source_files,
)

PROVENANCE = "upscale.json"
CARRIED = {".json", ".txt", ".model", ".jinja", ".tiktoken", ".py"}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(
    source: Path, target: Path, plan: LayerPlan, *, shard_bytes: int = SHARD_BYTES
) -> dict[str, Any]:
    """Write the child of `source` to the new folder `target`; returns what upscale.json holds.

    Raises UserError, leaving no folder `target`, when the target exists or cannot be written, the
    disk is too small or full, or a shard of the source is missing, cut or unreadable.
    """
    source, target = Path(source), Path(target)
    if target.exists():
        raise UserError(f"{target} exists; give another folder or remove it.")
    try:
        return _write(source, target, plan, shard_bytes)
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"The disk is full at {target}; free some space and run the same command again, the"
                " finished shards are kept."
            ) from error
        raise UserError(
            f"{target} cannot be written ({error.strerror}); give another folder."
        ) from error


def _write(source: Path, target: Path, plan: LayerPlan, shard_bytes: int) -> dict[str, Any]:
    config = child_config(read_config(source), plan)
    shards = layout(source, plan, shard_bytes)
    names = shard_names(len(shards))
    part = target.with_name(target.name + ".partial")
    part.mkdir(parents=True, exist_ok=True)
    _same_job(part, source, plan, shard_bytes)
    sizes = [len(header_bytes(s)) + sum(p.size for p in s) for s in shards]
    todo = [
        (name, shard, size)
        for name, shard, size in zip(names, shards, sizes, strict=True)
        if not (part / name).is_file() or (part / name).stat().st_size != size
    ]
    needed, free = sum(size for *_, size in todo), shutil.disk_usage(part).free
    if needed > free:
        if not any(part.glob("*.safetensors")):
            shutil.rmtree(part)
        raise UserError(
            f"{target} needs {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g} GB free; free"
            " some or give another disk."
        )
    digests = _work(source, part, todo)
    _carry(source, part)
    total = sum(piece.size for shard in shards for piece in shard)
    if len(shards) > 1:
        where = {p.name: name for name, s in zip(names, shards, strict=True) for p in s}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        _write_json(part / INDEX, index)
    (part / "mergekit.yaml").write_text(mergekit_yaml(source, plan, config))
    record = {
        "plan": asdict(plan),
        "source": {"folder": str(source), "sha256": digests},
        "tensors": sum(len(shard) for shard in shards),
        "parameters": sum(int(np.prod(p.shape)) for shard in shards for p in shard),
        "bytes": total,
        "katlab": katlab.__version__,
    }
    _write_json(part / PROVENANCE, record)
    _write_json(part / "config.json", config)
    (part / "job.json").unlink()
    part.rename(target)
    return record


def _work(source: Path, part: Path, todo: list[tuple[str, list[Piece], int]]) -> dict[str, str]:
    """Write the shards of `todo` and hash the source files while their pages are in memory."""
    stop, files = Event(), ["config.json", *source_files(source)]
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    digests, copies = {}, []
    try:
        for file, job in zip_longest(files, todo):
            if job is not None:
                copies.append(pool.submit(_write_shard, source, part, job[0], job[1]))
            if file is not None:
                digests[file] = pool.submit(_digest, source / file, stop)
        for copied in copies:
            copied.result()
        return {file: digest.result() for file, digest in digests.items()}
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _same_job(part: Path, source: Path, plan: LayerPlan, shard_bytes: int) -> None:
    """Mark the unfinished folder with its job, or check that it is this one."""
    stats = {f: [(s := (source / f).stat()).st_size, s.st_mtime_ns] for f in source_files(source)}
    job = {"source": str(source.resolve()), "files": stats, "shard_bytes": shard_bytes}
    job = json.loads(json.dumps(job | {"plan": asdict(plan)}))
    marker = part / "job.json"
    if not marker.is_file():
        _write_json(marker, job)
    elif json.loads(marker.read_text()) != job:
        raise UserError(f"{part} holds another unfinished child; remove it or finish that first.")


def _write_json(path: Path, content: dict) -> None:
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.rename(path)


def _digest(path: Path, stop: Event) -> str:
    with _reading(path):
        return safetensors_bytes.sha256(path, stop)


def _write_shard(source: Path, part: Path, name: str, pieces: list[Piece]) -> None:
    """Write one shard under a passing name, then give it its own."""
    unfinished = part / f"{name}.part"
    try:
        with unfinished.open("wb", buffering=0) as out:
            safetensors_bytes.append(out.fileno(), header_bytes(pieces))
            for (file, plain), run in groupby(pieces, key=lambda p: (p.source, p.factor == 1.0)):
                with _reading(source / file), (source / file).open("rb", buffering=0) as data:
                    if plain:
                        for offset, size in _ranges(run):
                            safetensors_bytes.copy(data.fileno(), out.fileno(), offset, size)
                    else:
                        for piece in run:
                            safetensors_bytes.scale(data.fileno(), out.fileno(), piece)
        unfinished.rename(part / name)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """An OSError in the block is the source's fault, unless the disk written to is full."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(
            f"Copying from {path} failed ({error.strerror}); repair or fetch that file and run the"
            " same command again."
        ) from error


def _ranges(run: Iterator[Piece]) -> Iterator[tuple[int, int]]:
    """(offset, size) of the pieces with neighbouring bytes joined."""
    start = end = -1
    for piece in run:
        if piece.offset != end:
            if end > start:
                yield start, end - start
            start = piece.offset
        end = piece.offset + piece.size
    if end > start:
        yield start, end - start


def _carry(source: Path, part: Path) -> None:
    """Copy tokenizer, chat template, generation config, remote code and licence."""
    for path in source.iterdir():
        own = path.name in ("config.json", INDEX, PROVENANCE)
        if path.is_file() and not own and not path.name.endswith(".index.json"):
            if path.suffix in CARRIED or path.name.upper().startswith("LICENSE"):
                shutil.copyfile(path, part / path.name)


def mergekit_yaml(source: Path, plan: LayerPlan, config: dict) -> str:
    """The plan as a mergekit passthrough recipe, for whoever prefers that tool."""
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    lines = ["merge_method: passthrough", f"dtype: {dtype}", "slices:"]
    i = 0
    while i < plan.child_layers:
        first, scale, end = plan.source[i], plan.scale[i], i + 1
        while end < plan.child_layers and (plan.source[end], plan.scale[end]) == (
            first + end - i,
            scale,
        ):
            end += 1
        lines += [
            "  - sources:",
            f"      - model: {json.dumps(str(source))}",
            f"        layer_range: [{first}, {first + end - i}]",
        ]
        if scale != 1.0:
            lines += ["        parameters:", "          scale:"]
            for part in ("o_proj", "down_proj"):
                lines += [f"            - filter: {part}", f"              value: {scale}"]
            lines.append("            - value: 1.0")
        i = end
    return "\n".join(lines) + "\n"
