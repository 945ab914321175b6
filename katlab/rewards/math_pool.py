"""The parent's side of the math worker: started lazily, killed and restarted, used from any thread.

One worker process per Python process (each rank has its own), with as many killable children as
cores. It ends with this process, however this process ends: its standard input closes.
Usage: `compare([("1/2", "0.5")], seconds=2.0)` gives `[("equal", "")]`
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from pathlib import Path

SLOTS = max(2, min(8, os.cpu_count() or 1))
WINDOW = 32  # items under way: their results fit a pipe, so that neither side can block the other
START_SECONDS = 120.0
WORKER = Path(__file__).with_name("math_worker.py")
COMMAND = [sys.executable, "-P", "-s", "-m", f"katlab.rewards.{WORKER.stem}"]
PASSED = ("PATH", "LD_LIBRARY_PATH", "HOME")
ROOT = str(Path(__file__).parents[2])  # where this katlab lies: the worker runs the same one
_lock = threading.Lock()
_worker: Worker | None = None


class Gone(Exception):
    """The worker died or cannot be started; its message says what to do."""


class Worker:
    """The running worker process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, str(SLOTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={k: os.environ[k] for k in PASSED if k in os.environ}
            | {"PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", ROOT)])},
        )
        self.buffer, self.next_id = b"", 0
        try:
            self.read(START_SECONDS)
        except Gone as error:
            self.close()
            raise Gone("the math worker does not start: pip install math-verify") from error

    def read(self, seconds: float) -> list[dict]:
        """The lines that arrive next; Gone when none does in time."""
        with selectors.DefaultSelector() as selector:  # select() ends at descriptor 1023
            selector.register(self.process.stdout, selectors.EVENT_READ)
            ready = selector.select(seconds)
        data = os.read(self.process.stdout.fileno(), 1 << 16) if ready else b""
        if not data:
            raise Gone("the math worker died" if ready else "the math worker does not answer")
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def compare(self, items: list[tuple[str, str]], seconds: float) -> list[tuple[str, str]]:
        """(state, note) for each (gold, answer)."""
        results: dict[int, tuple[str, str]] = {}
        first, sent = self.next_id, 0
        self.next_id += len(items)
        while len(results) < len(items):
            while sent < len(items) and sent - len(results) < WINDOW:
                gold, answer = items[sent]
                item = {"id": first + sent, "gold": gold, "answer": answer, "seconds": seconds}
                try:
                    self.process.stdin.write(json.dumps(item).encode() + b"\n")
                except OSError as error:
                    raise Gone("the math worker died") from error
                sent += 1
            for line in self.read(seconds * 6 + 20.0):  # its own clock is stricter
                results[line["id"] - first] = line["state"], line["note"]
        return [results[i] for i in range(len(items))]

    def close(self) -> None:
        """Kills the worker and its children, and waits."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def compare(items: list[tuple[str, str]], seconds: float) -> list[tuple[str, str]]:
    """(state, note) for each (gold, answer) pair of normalised strings, in order.

    States: equal, different, no_gold, timeout, memory, crash (the answer's fault), starved (the
    machine's), gone (no worker). Waits for other threads' batches.
    """
    global _worker
    if not items:
        return []
    with _lock:
        try:
            _worker = _worker or Worker()
            return _worker.compare(items, seconds)
        except (Gone, OSError) as error:
            _stop()
            return [("gone", str(error))] * len(items)
        except BaseException:  # an interrupt in the middle leaves the protocol out of step
            _stop()
            raise


def close() -> None:
    """Ends the worker; the next comparison starts another."""
    with _lock:
        _stop()


def _stop() -> None:
    global _worker
    if _worker is not None:
        _worker.close()
    _worker = None


def _forget() -> None:
    """In a forked child: the worker belongs to the parent."""
    global _worker, _lock
    _worker, _lock = None, threading.Lock()


atexit.register(close)
os.register_at_fork(after_in_child=_forget)
