"""The math worker: imports math-verify once and compares in forked children that it can kill.

Run by `katlab.rewards.math_pool`; lines of JSON in ({"id", "gold", "answer", "seconds"}), lines of
JSON out ({"id", "state", "note"}). This process itself never looks at an expression, so nothing
can hang it: a child past its deadline is killed and forked anew in milliseconds, and only its own
item is lost. Slots, in children: the first argument. What a child does with an item: `math_equal`.
"""

import json
import os
import resource
import selectors
import signal
import sys
import time

from katlab.rewards.math_equal import compare

MEMORY, PATIENCE = 2 << 30, 5
OWN = [
    ("x+1", "1+x"),
    (r"\frac{1}{2}", r"\sqrt{2}"),
    ("(1,2)", "(2,1)"),
    (r"\{1,x\}", r"\{x,1\}"),
    ("x=3", "2x=6"),
    (r"\sqrt{1/n}", r"1/\sqrt{n}"),
    ("1-1/e", "0.63"),
]  # to warm up with


def child(requests, results):
    """Serves one item after another until its pipe closes or it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":  # macOS refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(4000)
    source = os.fdopen(requests, "rb")
    for line in source:
        gold, answer = json.loads(line)
        try:
            state, note = compare(gold, answer, lambda: os.write(results, b"g\n"))
        except MemoryError:
            state, note = "memory", "out of memory"
        except BaseException as error:  # math-verify's own time-out is a BaseException
            state, note = "different", f"{type(error).__name__} in the comparison"
        os.write(results, json.dumps([state, note]).encode() + b"\n")
    os._exit(0)


class Slot:
    """One child and its item."""

    def __init__(self):
        self.pid = None
        self.fork()

    def fork(self):
        down_read, self.down = os.pipe()
        self.up, up_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            low, high = sorted((down_read, up_write))
            for first, end in ((3, low), (low + 1, high), (high + 1, 256)):
                os.closerange(first, end)  # the other children's pipes
            child(down_read, up_write)
        os.close(down_read)
        os.close(up_write)
        self.item, self.buffer, self.gold_parsed = None, b"", False

    def cpu(self):
        if sys.platform != "linux":
            return time.monotonic()  # no /proc: the wall clock stands in
        with open(f"/proc/{self.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def give(self, item):
        self.item, self.gold_parsed, self.buffer = item, False, b""
        self.start, self.cpu_before = time.monotonic(), self.cpu()
        self.deadline = self.start + item["seconds"]
        os.write(self.down, json.dumps([item["gold"], item["answer"]]).encode() + b"\n")

    def replace(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.down)
        os.close(self.up)
        self.fork()


def main():
    """Serve comparisons from standard input until it closes, each in a forked child."""
    import math_verify  # noqa: F401 (loaded here, once, for every child)
    from latex2sympy2_extended import latex2sympy  # noqa: F401

    for gold, answer in OWN:  # tables that are built on first use, here once for every child
        compare(gold, answer, lambda: None)
    out = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may enter the protocol
    selector, waiting, incoming = selectors.DefaultSelector(), [], b""
    slots = [Slot() for _ in range(int(sys.argv[1]))]
    selector.register(0, selectors.EVENT_READ, None)
    for slot in slots:
        selector.register(slot.up, selectors.EVENT_READ, slot)

    def say(slot, state, note):
        line = {"id": slot.item["id"], "state": state, "note": note}
        os.write(out, json.dumps(line).encode() + b"\n")
        slot.item = None

    def renew(slot):
        selector.unregister(slot.up)
        slot.replace()
        selector.register(slot.up, selectors.EVENT_READ, slot)

    os.write(out, b'{"id": -1, "state": "ready", "note": ""}\n')
    while True:
        busy = [slot for slot in slots if slot.item]
        now = time.monotonic()
        wait = max(0.0, min(s.deadline for s in busy) - now) if busy else None
        for key, _ in selector.select(wait):
            if key.data is None:
                data = os.read(0, 1 << 16)
                if not data:  # the parent has gone
                    for slot in slots:
                        os.kill(slot.pid, signal.SIGKILL)
                    os._exit(0)
                *lines, incoming = (incoming + data).split(b"\n")
                waiting += [json.loads(line) for line in lines]
                continue
            slot, data = key.data, os.read(key.fd, 1 << 16)
            slot.buffer += data
            if slot.buffer.startswith(b"g\n"):
                slot.gold_parsed, slot.buffer = True, slot.buffer[2:]
            if not data:
                if slot.item:
                    say(slot, "crash" if slot.gold_parsed else "no_gold", "the comparison crashed")
                renew(slot)
            elif slot.buffer.endswith(b"\n") and slot.item:
                say(slot, *json.loads(slot.buffer))
        for slot in slots:
            if slot.item and time.monotonic() >= slot.deadline:
                seconds = slot.item["seconds"]
                left = 0.95 * seconds - (slot.cpu() - slot.cpu_before)
                # On a busy machine it still gets its processor time, up to PATIENCE times as late.
                if left > 0 and time.monotonic() < slot.start + PATIENCE * seconds:
                    slot.deadline = time.monotonic() + max(left, 0.05)
                    continue
                state = "starved" if left > 0 else "timeout" if slot.gold_parsed else "no_gold"
                say(slot, state, f"over {seconds:g} s")
                renew(slot)
            if not slot.item and waiting:
                slot.give(waiting.pop(0))


if __name__ == "__main__":
    main()
