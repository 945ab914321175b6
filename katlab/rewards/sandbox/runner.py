"""Runs candidates in sandboxes, several at a time, and reads what they say with caps.

One sandbox per candidate, all its tests in one start, killed whole at the end whatever it did.
A single selector loop drives up to `SLOTS` of them from the calling thread: no thread pool, so it
works in Jupyter, under several ranks and from any thread (which must live as long as its
sandboxes: they are tied to it and die with it).

The line between the candidate's fault and ours: before its ready record, a sandbox that fails is
`failed` (unscorable); afterwards everything, an exit, a time-out, a flood, is the candidate's.
Usage: `run([Job("call", code="f = abs", entry="f", requests=[([-3], {})])], choose())`
"""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from katlab.rewards.sandbox.box import Box
from katlab.rewards.sandbox.commands import Isolation

SLOTS = max(2, min(16, (os.cpu_count() or 1) + 1))
START_SECONDS = 30.0  # for the interpreter to come up, on a busy machine; not the candidate's time
_slots = threading.BoundedSemaphore(SLOTS)


def _fresh_slots() -> None:
    """In a forked child: the slots that the parent's threads held are not held here."""
    global _slots
    _slots = threading.BoundedSemaphore(SLOTS)


os.register_at_fork(after_in_child=_fresh_slots)


@dataclass
class Job:
    """One candidate; `judge` makes a second sandbox that holds the tests and relays its calls."""

    mode: str  # call, stdin, serve, asserts
    code: str
    entry: str = ""
    setup: str = ""
    requests: list[Any] = field(default_factory=list)
    tests: str = ""
    judge: dict[str, Any] | None = None  # {"setup", "names", "tests"}
    seconds: float = 5.0
    memory: int = 512 << 20


@dataclass
class Outcome:
    """status: done, ended, timeout, flood, forged, failed (the last one is ours)."""

    status: str
    records: list[tuple[str, bytes]]  # the candidate's V and E, in order
    judged: list[tuple[str, bytes]]  # the judge's B, E or D
    reason: str
    seconds: float


class _Run:
    """A job under way: its sandboxes, its clock, what was said so far."""

    def __init__(self, index: int, job: Job, isolation: Isolation) -> None:
        self.index, self.job, self.start = index, job, time.monotonic()
        self.records: list[tuple[str, bytes]] = []
        self.judged: list[tuple[str, bytes]] = []
        self.boxes: list[Box] = []
        # The judge's tests stay out of the candidate's sandbox, and its code out of the judge's.
        parts = [vars(job) | {"judge": None}]
        if job.judge:
            limits = {"seconds": job.seconds, "memory": job.memory}
            parts.append({"mode": "judge", **limits, **job.judge})
        try:
            for part in parts:
                self.boxes.append(Box(isolation, part))
        except OSError:
            self.finish("failed", "cannot start")
            raise
        self.deadline = self.start + START_SECONDS

    @property
    def waiting(self) -> int:
        """How many sandboxes have not sent their ready record."""
        return sum(not box.ready for box in self.boxes)

    def feed(self, box: Box) -> tuple[str, str] | None:
        """Takes a sandbox's records; (status, reason) when the job is over."""
        records, fault = box.take()
        judge = self.job.judge is not None and box is self.boxes[-1]
        for kind, payload in records:
            if kind == "R" and not box.ready:
                box.ready = True
                if self.waiting == 0:  # the candidate's clock starts when all sandboxes are up
                    self.deadline = time.monotonic() + self.job.seconds
            elif judge and kind == "C":
                self.boxes[0].send(payload)
            elif judge:
                self.judged.append((kind, payload))
                return "done", ""
            elif kind == "D":
                return "done", ""
            elif kind in "VE":
                self.records.append((kind, payload))
                if self.job.judge is None and len(self.records) > len(self.job.requests) + 1:
                    return "forged", "more records than tests"
                if self.job.judge is not None:
                    self.boxes[1].send(kind.encode() + payload)
            else:
                return "forged", "a record of no known kind"
        if fault and not box.ready:
            return "failed", f"the sandbox did not start ({box.isolation.name})"
        if fault == "closed":
            if self.records and self.records[-1][0] == "E" or judge:
                return "ended", "the tests ended early"
            return "ended", "the candidate ended before its tests did"
        return (fault, fault) if fault else None

    def finish(self, status: str, reason: str) -> Outcome:
        seconds = time.monotonic() - self.start
        for box in self.boxes:
            box.close()
        return Outcome(status, self.records, self.judged, reason, seconds)


def run(jobs: list[Job], isolation: Isolation) -> list[Outcome]:
    """Runs every job, at most SLOTS at once over all threads; outcomes in the jobs' order.

    `isolation`: as `katlab.rewards.sandbox.isolation.choose` gives it.
    """
    outcomes: dict[int, Outcome] = {}
    running: list[_Run] = []
    queue = deque(enumerate(jobs))
    with selectors.DefaultSelector() as selector:
        try:
            while queue or running:
                while queue and _slots.acquire(blocking=not running):
                    index, job = queue.popleft()
                    try:
                        running.append(_Run(index, job, isolation))
                    except OSError as error:
                        _slots.release()
                        fault = f"cannot start a sandbox: {error}"
                        outcomes[index] = Outcome("failed", [], [], fault, 0.0)
                        continue
                    for box in running[-1].boxes:
                        selector.register(box.results, selectors.EVENT_READ, (running[-1], box))
                        selector.register(box.requests, selectors.EVENT_WRITE, (running[-1], box))
                _step(running, outcomes, selector)
        finally:  # an interrupt in a notebook leaves nothing behind
            for one in running:
                one.finish("failed", "interrupted")
                _slots.release()
    return [outcomes[index] for index in range(len(jobs))]


def _step(
    running: list[_Run], outcomes: dict[int, Outcome], selector: selectors.BaseSelector
) -> None:
    """Waits for the next event and deals with it and with overdue jobs."""
    now = time.monotonic()
    wait = min((one.deadline for one in running), default=now) - now
    over: dict[int, tuple[Any, tuple[str, str]]] = {}
    for key, _ in selector.select(max(0.0, wait)):
        one, box = key.data
        if one.index in over:
            continue
        if key.fd == box.requests:
            if not box.flush():
                selector.unregister(box.requests)
            continue
        if end := one.feed(box):
            over[one.index] = one, end
        for other in one.boxes:
            if other.outgoing and other.requests not in selector.get_map():
                selector.register(other.requests, selectors.EVENT_WRITE, (one, other))
    now = time.monotonic()
    for one in running:
        if one.index not in over and now >= one.deadline:
            late = "timeout", f"over {one.job.seconds:g} s"
            if one.waiting:
                late = "failed", "the sandbox did not start in time"
            over[one.index] = one, late
    for one, (status, reason) in over.values():
        for box in one.boxes:
            for fd in (box.results, box.requests):
                if fd in selector.get_map():
                    selector.unregister(fd)
        running.remove(one)
        outcomes[one.index] = one.finish(status, reason)
        _slots.release()
