"""Which isolation this machine really gives: each rung is tried by a candidate that tries to leave.

Probed once in a process, recorded in every code verdict (`detail["isolation"]`).
Usage: `rung, binary, why = choose()`
"""

from __future__ import annotations

import os
import tempfile
import threading

from katlab.rewards import isolation
from katlab.rewards.sandbox import Job, run

# Each call returns what it managed to do; an isolated one manages nothing but the first.
_PROBE = """
import os
def probe(what, argument):
    try:
        if what == "add":
            return argument + 1
        if what == "read":
            return open(argument).read(10)
        if what == "write":
            return open(argument, "w").write("x")
        if what == "list":
            return os.listdir(argument)
        if what == "fork":
            pid = os.fork()
            if not pid:
                os._exit(0)
            return pid
        if what == "socket":
            import socket
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            return one.connect((argument, 9)) or "a route"
        if what == "signal":
            return os.kill(argument, 0)
        if what == "environment":
            return sorted(set(os.environ) & set(argument))
    except OSError as error:
        return "denied"
"""
OWN = {"PYTHONHASHSEED", "LD_LIBRARY_PATH", "PWD", "LC_CTYPE", "PATH", "HOME"}  # a sandbox's own
_lock = threading.Lock()
_chosen: dict[str | None, tuple[str, str, str]] = {}


def probe(rung: str, binary: str) -> str:
    """ "" when the rung isolates here, else what went wrong."""
    with tempfile.NamedTemporaryFile("w", prefix="katlab-probe-") as secret:
        secret.write("a file of the grader's user")
        secret.flush()
        return _probe(rung, binary, secret.name)


def _probe(rung: str, binary: str, secret: str) -> str:
    requests = [
        ("add", 1),
        ("read", "/etc/passwd"),
        ("write", "/usr/lib/katlab-probe"),
        ("read", secret),
        ("list", "/etc"),
        ("fork", 0),
        ("socket", "192.0.2.1"),
        ("signal", os.getppid()),
        ("environment", sorted(set(os.environ) - OWN)),
    ]
    job = Job("call", _PROBE, "probe", requests=[(r, {}) for r in requests], seconds=10.0)
    outcome = run([job], rung, binary)[0]
    if outcome.status != "done":
        return outcome.reason
    said = [payload.decode() for _, payload in outcome.records]
    if said[:1] != ["2"]:
        return f"the candidate did not run: {said[:1]}"
    if rung == "container":  # its own users, processes and pids limit; only the network is asked
        return "" if said[6] == '"denied"' else f"network: {said[6]}"
    for (what, argument), answer in zip(requests[1:8], said[1:8], strict=True):
        if answer != '"denied"':
            return f"a candidate could {what} {argument}"
    if said[8:] != ["[]"]:
        return f"a candidate saw the environment: {said[8:]}"
    return ""


def choose() -> tuple[str, str, str]:
    """(rung, its binary, why not better): the best rung that holds here, or ("none", "", mend)."""
    forced = isolation.wanted()
    with _lock:
        if forced not in _chosen:
            _chosen[forced] = _choose(forced)
        return _chosen[forced]


def _choose(forced: str | None) -> tuple[str, str, str]:
    if forced == "unsafe":
        return "unsafe", isolation.binaries("unsafe")[0], "KATLAB_SANDBOX=unsafe"
    faults = []
    rungs = isolation.RUNGS if forced is None else [r for r in isolation.RUNGS if r == forced]
    for rung in rungs:
        faults.append(f"{rung}: not installed")
        for binary in isolation.binaries(rung):
            if not (fault := probe(rung, binary)):
                return rung, binary, "; ".join(faults[:-1])
            faults[-1] = f"{rung}: {fault}"
    why = "; ".join(faults) or "KATLAB_SANDBOX=none"
    return "none", "", f"no isolation on this machine ({why}): run katlab doctor"


def doctor() -> list[tuple[str, bool, str, str]]:
    """One line: the rung in use, or what failed on each and the command that mends it."""
    rung, binary, why = choose()
    if rung == "none":
        mend = isolation.MEND["bubblewrap"]
        if isolation.bwraps():  # installed, and yet refused: user namespaces are closed here
            mend = (
                "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 "
                "user.max_user_namespaces=15000"
            )
        return [("code isolation", False, why, mend)]
    detail = f"{rung} ({binary})" + (f"; {why}" if why else "")
    return [
        (
            "code isolation",
            rung != "unsafe",
            detail,
            "" if rung != "unsafe" else "unset KATLAB_SANDBOX",
        )
    ]
