"""One runner at a time in a run folder.

Usage:  with run_lock(outputs / "demo"): ...
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from katlab import UserError


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold outputs/<run>/ for this process; UserError if another one holds it.

    The lock belongs to the process, so a killed runner leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"Run '{folder.name}' is being worked on by another process; "
            "wait for it or choose another name with --run."
        ) from error
    try:
        yield
    finally:
        lock.release()
