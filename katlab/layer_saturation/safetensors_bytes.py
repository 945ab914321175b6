"""The bytes of a checkpoint on their way: copied by the kernel, scaled in chunks, hashed.

Files are descriptors. Whatever fails raises OSError, a file that ends early too.
"""

import errno
import hashlib
import os
import sys
from pathlib import Path
from threading import Event

import numpy as np

from katlab.layer_saturation.safetensors_layout import NUMPY, Piece

CHUNK = 4 * 2**20
UNSUPPORTED = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


def append(target: int, data: bytes) -> None:
    """Write all of `data`: near the end of a disk a single write may take only a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]


def copy(source: int, target: int, offset: int, size: int) -> None:
    """Append a range of the source; within the kernel on Linux, through a buffer elsewhere."""
    ways = [_share, _send] if sys.platform == "linux" else [_buffered]
    while size:
        try:
            done = ways[0](source, target, offset, min(size, 2**30))
        except OSError as error:
            if error.errno not in UNSUPPORTED or len(ways) == 1:
                raise
            ways.pop(0)  # the source lies on another file system, or on one that cannot share
            continue
        if not done:
            raise OSError(errno.EIO, "the file ended early")
        offset, size = offset + done, size - done


def _share(source: int, target: int, offset: int, size: int) -> int:
    """On file systems that share extents (XFS, Btrfs) nothing is copied at all."""
    return os.copy_file_range(source, target, size, offset)


def _send(source: int, target: int, offset: int, size: int) -> int:
    return os.sendfile(target, source, offset, size)


def _buffered(source: int, target: int, offset: int, size: int) -> int:
    return os.write(target, os.pread(source, min(size, CHUNK), offset))


def scale(source: int, target: int, piece: Piece) -> None:
    """Append a tensor times its factor (with its shift), in chunks."""
    for done in range(0, piece.size, CHUNK):
        size = min(CHUNK, piece.size - done)
        if piece.factor == 0.0 and not piece.shift:
            append(target, bytes(size))
            continue
        data = os.pread(source, size, piece.offset + done)
        if len(data) != size:
            raise OSError(errno.EIO, "the file ended early")
        values = np.frombuffer(data, NUMPY[piece.dtype])
        append(target, scaled(values, piece.factor, piece.dtype, piece.shift))


def scaled(values: np.ndarray, factor: float, dtype: str, shift: float = 0.0) -> bytes:
    """(values + shift) factor - shift, rounded as the dtype is; BF16 comes and goes as uint16."""
    if dtype == "BF16":
        wide = (values.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = values.astype(np.float64 if dtype == "F64" else np.float32, copy=False)
    by, added = wide.dtype.type(factor), wide.dtype.type(shift)
    wide = (wide + added) * by - added if shift else wide * by
    if dtype != "BF16":
        return wide.astype(values.dtype, copy=False).tobytes()
    bits = wide.view(np.uint32)  # rounded to nearest even, as torch does
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def sha256(path: Path, stop: Event) -> str:
    """SHA-256 of a file; gives up when `stop` is set."""
    digest, buffer = hashlib.sha256(), bytearray(CHUNK)
    with path.open("rb", buffering=0) as file:
        while (size := file.readinto(buffer)) and not stop.is_set():
            digest.update(memoryview(buffer)[:size])
    return digest.hexdigest()
