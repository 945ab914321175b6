"""Write an upscaled checkpoint without loading it: bytes of safetensors, copied by the kernel.

Report section 2 at full size: 65 GB of Qwen2.5-32B become 81 GB of a 40B. The safetensors headers
say where every tensor lies, so the child is new headers plus ranges of the parent's files; a tensor
is decoded only where its start scales it. Memory stays below half a gigabyte whatever the size.

The child grows in DST.partial and is renamed to DST when it is whole. While the first bytes are
copied the plan is tried on a small copy (`probe`, most of the memory); a refused child leaves
nothing. After an interruption finished shards are kept. Beside the weights lie upscale.json (plan,
layer map, start, SHA-256 of the source files) and mergekit.yaml.

    writer.write(Path("Qwen2.5-32B"), Path("KAT-40B"), plan)
"""

import errno
import gc
import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby, zip_longest
from pathlib import Path
from threading import Event
from typing import Any

import katlab
from katlab import UserError
from katlab.layer_saturation import mergekit, safetensors_bytes
from katlab.layer_saturation.plan import LayerPlan
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
    disk is too small or full, a shard of the source is missing, cut or unreadable, or the child
    would not be what its plan says.
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
    shards = layout(source, plan, read_config(source)["model_type"], shard_bytes)
    names = shard_names(len(shards))
    part = target.with_name(target.name + ".partial")
    fresh = not part.exists()
    part.mkdir(parents=True, exist_ok=True)
    _same_job(part, source, plan, shard_bytes)
    proven = False
    try:
        with _at_work(source, part, dict(zip(names, shards, strict=True))) as (written, digests):
            config, proven = _proven(source, plan), True
            for shard in written:
                shard.result()
            sha256 = {file: digest.result() for file, digest in digests.items()}
    finally:
        if fresh and not proven:
            shutil.rmtree(part)
    _carry(source, part)
    where = {p.name: name for name, shard in zip(names, shards, strict=True) for p in shard}
    total = sum(piece.size for shard in shards for piece in shard)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        _write_json(part / INDEX, index)
    (part / mergekit.FILE).write_text(mergekit.recipe(source, plan, config, where))
    record = {
        "plan": asdict(plan),
        "source": {"folder": str(source), "sha256": sha256},
        "tensors": len(where),
        "parameters": sum(math.prod(p.shape) for shard in shards for p in shard),
        "bytes": total,
        "katlab": katlab.__version__,
    }
    _write_json(part / PROVENANCE, record)
    _write_json(part / "config.json", config)
    (part / "job.json").unlink()
    part.rename(target)
    return record


def _proven(source: Path, plan: LayerPlan) -> dict:
    """The child's configuration, tried on a small copy of the parent; UserError as `probe`."""
    gc.disable()  # a quarter of the time that torch and transformers take to import
    try:
        from katlab.layer_saturation import configuration, probe

        config = configuration.of_child(read_config(source), plan)
        probe.prove(source, plan, config)
        return config
    finally:
        gc.enable()


@contextmanager
def _at_work(
    source: Path, part: Path, shards: dict[str, list[Piece]]
) -> Iterator[tuple[list[Future], dict[str, Future]]]:
    """Write the shards that are not there, and hash the source files while they are in memory.

    Goes on within the block, where the small copy is tried; what is not done then is stopped.
    """
    todo = _todo(part, shards)
    stop, files = Event(), ["config.json", *source_files(source)]
    pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1))
    written, digests = [], {}
    try:
        for file, name in zip_longest(files, todo):
            if name is not None:
                written.append(pool.submit(_write_shard, source, part, name, shards[name], stop))
            if file is not None:
                digests[file] = pool.submit(_digest, source / file, stop)
        yield written, digests
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _todo(part: Path, shards: dict[str, list[Piece]]) -> list[str]:
    """The shards that are not in the folder; UserError where the disk has no room for them."""
    sizes = {n: len(header_bytes(s)) + sum(p.size for p in s) for n, s in shards.items()}
    there = {path.name: path.stat().st_size for path in part.glob("*.safetensors")}
    todo = [name for name in sizes if there.get(name) != sizes[name]]
    needed, free = sum(sizes[name] for name in todo), shutil.disk_usage(part).free
    if needed > free:
        raise UserError(
            f"{part.with_suffix('')} needs {needed / 1e9:.3g} GB and the disk has {free / 1e9:.3g}"
            " GB free; free some or give another disk."
        )
    return todo


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


def _write_shard(source: Path, part: Path, name: str, pieces: list[Piece], stop: Event) -> None:
    """Write one shard under a passing name, then give it its own."""
    unfinished = part / f"{name}.part"
    try:
        with unfinished.open("wb", buffering=0) as out:
            safetensors_bytes.append(out.fileno(), header_bytes(pieces))
            for (file, plain), run in groupby(pieces, key=lambda p: (p.source, p.factor == 1.0)):
                with _reading(source / file), (source / file).open("rb", buffering=0) as data:
                    if plain:
                        for offset, size in _ranges(run):
                            _go_on(stop)
                            safetensors_bytes.copy(data.fileno(), out.fileno(), offset, size)
                    else:
                        for piece in run:
                            _go_on(stop)
                            safetensors_bytes.scale(data.fileno(), out.fileno(), piece)
        unfinished.rename(part / name)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _go_on(stop: Event) -> None:
    """Give up when the child is refused or another shard has failed."""
    if stop.is_set():
        raise CancelledError


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
    """(offset, size) of the pieces with neighbouring bytes joined, up to a quarter of a GB."""
    start = end = -1
    for piece in run:
        if piece.offset != end or end - start > 2**28:
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
