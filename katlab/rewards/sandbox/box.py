"""One sandbox process: started, fed, read with caps, and killed whole.

Records come over a descriptor of their own, each opening with a nonce that the process was given;
what else arrives there is a forgery. A candidate can find the nonce (it shares its process with
the reader of its tests), and gains nothing by it: a record carries a value of its own, no verdict.
Usage: `box = Box(isolation, {"mode": "call", ...})`; then `flush`, `take`, `close`.
"""

from __future__ import annotations

import marshal
import os
import secrets
import signal
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

from katlab.rewards.sandbox import commands, seccomp

MAX_RECORD, MAX_TOTAL = 9 << 20, 64 << 20  # bytes of a record; of all that one sandbox says
HEADER = 16 + 1 + 10  # nonce, kind, length
INSIDE, LANDLOCK = ("values.py", "programs.py", "inside.py"), ("landlock.py",)


@lru_cache
def code(names: tuple[str, ...], as_source: bool) -> Any:
    """The files of this folder as one program: its source, or compiled."""
    parts = [Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names]
    source = "\n\n".join(parts)
    return source if as_source else compile(source, f"<{names[-1]}>", "exec")


class Box:
    """One sandbox process with its three descriptors."""

    def __init__(self, isolation: commands.Isolation, job: dict[str, Any]) -> None:
        self.isolation, self.ready = isolation, False
        self.nonce = secrets.token_hex(8).encode()
        self.name = f"katlab-{self.nonce.decode()}"
        self.buffer, self.total, self.outgoing = bytearray(), 0, bytearray()
        self.most = min(MAX_TOTAL, MAX_RECORD * max(2, len(job.get("requests", ()))))
        own_fd = isolation.name != "container"
        ours, theirs = os.pipe()
        filter_read, filter_write = os.pipe()
        os.write(filter_write, seccomp.program() if isolation.name == "bubblewrap" else b"")
        os.close(filter_write)
        job = {
            "nonce": self.nonce,
            "fd": theirs if own_fd else -1,
            "namespace": isolation.name == "bubblewrap",
            "in_fd": -1,
            "out_fd": -1,
            **job,
        }
        files = []
        if job["mode"] == "stdin" and own_fd:  # a container takes none and uses its own /tmp
            files = [os.memfd_create("in"), os.memfd_create("out")]
            job |= {"in_fd": files[0], "out_fd": files[1]}
        if isolation.name == "landlock":
            rules = {"readable": commands.readable(), "program": seccomp.program(own_pid=True)}
            job["confine"] = (rules, code(LANDLOCK, False))
        passed = [theirs, *files, filter_read] if own_fd else []
        try:
            self.process = subprocess.Popen(
                commands.start_command(isolation, filter_read, self.name),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if own_fd else theirs,
                stderr=subprocess.DEVNULL,
                env=commands.ENVIRONMENT if own_fd else None,
                cwd="/",
                pass_fds=passed,
                start_new_session=True,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            for fd in (theirs, filter_read, *files):
                os.close(fd)
        self.results, self.requests = ours, self.process.stdin.fileno()
        os.set_blocking(self.results, False)
        os.set_blocking(self.requests, False)
        space = {"job": job, "__name__": "inside"}
        self.send(marshal.dumps((code(INSIDE, not own_fd), space), 4))

    def send(self, data: bytes) -> None:
        self.outgoing += b"%010d" % len(data) + data

    def flush(self) -> bool:
        """Writes what fits; False once nothing is left (or the other end has gone)."""
        try:
            sent = os.write(self.requests, self.outgoing[: 1 << 16])
            del self.outgoing[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.outgoing.clear()
        return bool(self.outgoing)

    def take(self) -> tuple[list[tuple[str, bytes]], str]:
        """(records that are complete, "" or the fault: closed, flood, forged)."""
        fault = ""
        try:
            data = os.read(self.results, 1 << 18)
            self.buffer += data
            self.total += len(data)
            fault = "" if data else "closed"
        except BlockingIOError:
            pass
        records: list[tuple[str, bytes]] = []
        while len(self.buffer) >= HEADER:
            size = bytes(self.buffer[17:HEADER])
            if bytes(self.buffer[:16]) != self.nonce or not size.isdigit():
                return records, "forged"
            if int(size) > MAX_RECORD:
                return records, "flood"
            end = HEADER + int(size)
            if len(self.buffer) < end:
                break
            records.append((chr(self.buffer[16]), bytes(self.buffer[HEADER:end])))
            del self.buffer[:end]
        return records, "flood" if self.total > self.most else fault

    def close(self) -> None:
        """Kills the sandbox and everything in it, and waits until it is gone."""
        if self.isolation.name == "container":
            kill = [self.isolation.binary, "kill", self.name]
            subprocess.run(kill, capture_output=True, check=False)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # a session of its own
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdin.close()
        os.close(self.results)
